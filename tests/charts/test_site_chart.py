"""The chart for sites: what it renders is valid, restricted, and what `metisfl join` understands."""

from __future__ import annotations

import base64
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from helm_python import Chart
from helm_python.chart import lint
from helm_python.errors import HelmError

from metisfl.cli.join import join

CONTENT: dict[str, Any] = {"bundle": {"content": "kind: SiteBundle\n"}}
CUSTOM: dict[str, Any] = {
    "bundle": {"existingSecret": "mine"},
    "replicas": 3,
    "entrypoint": "my_learner:MyLearner",
    "parameters": {"data": "/data/train set.parquet", "alpha": "0.5"},
    "sourceConfigMap": "code",
    "image": {"name": "registry.example/l:1", "pullPolicy": "Always", "pullSecrets": [{"name": "pull"}]},
    "proxy": {"https": "http://proxy:3128", "exceptions": "10.0.0.0/8"},
    "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"e": "f"},
    "tolerations": [{"key": "g", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "persistence": {"size": "2Gi", "storageClassName": "fast"},
}


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[Chart]:
    with Chart.load(root / "charts" / "metisfl-site") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def objects(site: Chart) -> Callable[..., dict[str, dict[str, Any]]]:
    def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
        texts = site.render(values, name="hospital-b", namespace="fl")
        yamls = (text for path, text in texts.items() if not path.endswith("NOTES.txt"))
        return {found["kind"]: found for text in yamls for found in yaml.safe_load_all(text) if found}

    return rendered


def container_of(made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (container,) = made["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


@pytest.mark.parametrize("values", [CONTENT, CUSTOM], ids=["small", "custom"])
@pytest.mark.parametrize("version", ["1.25", "1.30", "1.36"])
def test_objects_are_valid(objects: Callable[..., Any], values: dict[str, Any], version: str) -> None:
    for manifest in objects(values).values():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", [CONTENT, CUSTOM], ids=["small", "custom"])
def test_lint_finds_nothing(root: Path, values: dict[str, Any]) -> None:
    report = lint(root / "charts" / "metisfl-site", values, strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


def test_the_bundle_becomes_a_secret_or_is_one(objects: Callable[..., Any]) -> None:
    made = objects(CONTENT)
    assert base64.b64decode(made["Secret"]["data"]["bundle.yaml"]) == b"kind: SiteBundle\n"
    volumes = {v["name"]: v for v in made["StatefulSet"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes["metisfl-bundle"]["secret"]["secretName"] == made["Secret"]["metadata"]["name"]
    assert "Secret" not in objects(CUSTOM)


@pytest.mark.parametrize("bundle", [{}, {"content": "x", "existingSecret": "y"}])
def test_a_site_needs_one_bundle(objects: Callable[..., Any], bundle: dict[str, str]) -> None:
    with pytest.raises(HelmError):
        objects({"bundle": bundle})


def test_pods_are_restricted_and_reached_by_nobody(objects: Callable[..., Any]) -> None:
    made = objects(CUSTOM)
    pod, container = made["StatefulSet"]["spec"]["template"]["spec"], container_of(made)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "ports" not in container
    assert made["NetworkPolicy"]["spec"]["ingress"] == []
    assert "NetworkPolicy" not in objects({**CONTENT, "networkPolicy": {"enabled": False}})


@pytest.mark.parametrize("label", ["app.kubernetes.io/name", "app.kubernetes.io/instance", "helm.sh/chart"])
def test_labels_of_the_chart_are_not_set_twice(objects: Callable[..., Any], label: str) -> None:
    with pytest.raises(HelmError, match=f"podLabels: {label} is set by the chart"):
        objects({**CONTENT, "podLabels": {label: "mine"}})


def test_join_understands_how_it_is_called(objects: Callable[..., Any], tmp_path: Path) -> None:
    container = container_of(objects(CUSTOM))
    assert container["command"][:4] == ["python", "-m", "metisfl", "join"]
    assert "--parameters=data=/data/train set.parquet" in container["args"]
    missing = tmp_path / "bundle.yaml"
    result = CliRunner().invoke(join, [str(missing), *container["args"]])
    # Every option is known: what is wrong is the bundle.
    assert "bundle.yaml: cannot be read: No such file or directory" in result.output


def test_the_proxy_reaches_the_process(objects: Callable[..., Any]) -> None:
    environment = {entry["name"]: entry.get("value") for entry in container_of(objects(CUSTOM))["env"]}
    assert (environment["https_proxy"], environment["no_proxy"]) == ("http://proxy:3128", "10.0.0.0/8")
    assert environment["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 1},
        {"replicas": -1},
        {"entrypoint": "no class"},
        {"proxy": {"https": "proxy:3128"}},
        {"logFormat": "xml"},
    ],
    ids=str,
)
def test_unknown_and_wrong_values_are_refused(site: Chart, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError):
        site.validate_schema(values)


def test_the_readme_tells_of_these_values(root: Path) -> None:
    tool = runpy.run_path(str(root / "hack" / "chart-readme"))
    chart = root / "charts" / "metisfl-site"
    assert (chart / "README.md").read_text() == tool["readme"](chart), "run hack/chart-readme"

"""The chart: what it renders is what Kubernetes takes, from the oldest supported version to the newest."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart
from helm_python.chart import lint
from helm_python.errors import HelmError

from metisfl.spec.crd import crd
from metisfl_operator.settings import Settings as OperatorSettings
from tests.unit.operator.pod_security import violations

Render = Callable[..., list[dict[str, Any]]]

# From the oldest that the validator knows to its newest; the cluster tests use 1.20.
VERSIONS = [f"1.{minor}" for minor in range(25, 38)]
FEW = ("1.25", "1.37")
CUSTOM: dict[str, Any] = {
    "namespaces": ["team-a", "team-b"],
    "crds": {"keep": False},
    "images": {"operator": "registry.example/op:1", "pullPolicy": "Always", "pullSecrets": [{"name": "pull"}]},
    "logFormat": "text",
    "networkPolicies": {"restrictLearnerEgress": True, "learnerEgress": [{"ports": [{"port": 5432}]}]},
    "metrics": {"monitor": {"enabled": True, "kind": "ServiceMonitor", "labels": {"h": "i"}}},
    "rules": {"enabled": True, "labels": {"h": "i"}},
    "dashboards": {"enabled": True, "annotations": {"folder": "x"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"e": "f"},
    "tolerations": [{"key": "g", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in objects if manifest["kind"] == kind]
    return found


def operator_pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = one(objects, "Deployment")["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("values", [{}, CUSTOM], ids=["default", "custom"])
@pytest.mark.parametrize("version", [pytest.param(v, marks=[] if v in FEW else pytest.mark.slow) for v in VERSIONS])
def test_objects_are_valid(render: Render, values: dict[str, Any], version: str) -> None:
    for manifest in render(**values):
        group = manifest["apiVersion"].partition("/")[0]
        if group not in ("apiextensions.k8s.io", "monitoring.coreos.com"):
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", [{}, CUSTOM], ids=["default", "custom"])
def test_lint_finds_nothing(root: Path, values: dict[str, Any]) -> None:
    report = lint(root / "charts" / "metisfl", values, strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


def test_the_crd_is_the_generated_one_and_is_kept(render: Render) -> None:
    found = one(render(), "CustomResourceDefinition")
    assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert found == crd()


def test_the_crd_can_go_with_the_release(render: Render) -> None:
    assert "annotations" not in one(render(crds={"keep": False}), "CustomResourceDefinition")["metadata"]


def test_the_crd_can_be_left_to_others(render: Render) -> None:
    assert "CustomResourceDefinition" not in {manifest["kind"] for manifest in render(crds={"enabled": False})}


def test_the_operator_runs_alone_and_restricted(render: Render) -> None:
    deployment = one(render(), "Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert violations(pod) == []
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_no_permission_is_given_by_wildcard(render: Render) -> None:
    rules = [rule for values in ({}, CUSTOM) for manifest in render(**values) for rule in manifest.get("rules", [])]
    assert rules
    for rule in rules:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]


def test_the_operator_cannot_watch_secrets_or_delete_volumes(render: Render) -> None:
    rules = one([m for m in render() if m["metadata"]["name"] == "metisfl"], "ClusterRole")["rules"]
    granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert {verb for resource, verb in granted if resource == "secrets"} == {"get", "list", "create", "patch", "delete"}
    assert ("persistentvolumeclaims", "delete") not in granted
    assert ("pods", "delete") not in granted


def test_named_namespaces_get_roles_and_no_cluster_role(render: Render) -> None:
    objects = render(namespaces=["team-a", "team-b"], rbac={"aggregate": False})
    assert {m["metadata"]["namespace"] for m in objects if m["kind"] in ("Role", "RoleBinding")} == {"team-a", "team-b"}
    assert not [m for m in objects if m["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    (container,) = operator_pod(objects)["containers"]
    assert [arg for arg in container["args"] if "namespace" in arg] == ["--namespace=team-a", "--namespace=team-b"]
    assert {"name": "METISFL_NAMESPACES", "value": "team-a,team-b"} in container["env"]


def test_every_role_is_bound_to_the_operators_account(render: Render) -> None:
    for values in ({}, {"namespaces": ["team-a"]}, {"serviceAccount": {"name": "other"}}):
        objects = render(**values)
        account = one(objects, "ServiceAccount")["metadata"]["name"]
        assert operator_pod(objects)["serviceAccountName"] == account
        for binding in (m for m in objects if m["kind"].endswith("RoleBinding")):
            assert binding["subjects"] == [
                {"kind": "ServiceAccount", "name": account, "namespace": "metisfl-system"},
            ]


def test_two_releases_do_not_share_names(render: Render) -> None:
    def names(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
        return {(m["kind"], m["metadata"]["name"]) for m in objects if m["kind"] != "CustomResourceDefinition"}

    assert not names(render(name="one")) & names(render(name="two"))


def test_labels_of_the_chart_are_not_set_twice(render: Render) -> None:
    with pytest.raises(HelmError, match=r"podLabels: app\.kubernetes\.io/name is set by the chart"):
        render(podLabels={"app.kubernetes.io/name": "mine"})


@pytest.mark.parametrize(
    "values",
    [
        {"imagse": {}},
        {"images": {"operator": ""}},
        {"images": {"pullPolicy": "Sometimes"}},
        {"logFormat": "xml"},
        {"namespaces": "team-a"},
        {"rbac": {"create": "yes"}},
        {"metrics": {"monitor": {"kind": "Probe"}}},
        {"metrics": {"port": 70000}},
        {"networkPolicies": {"httpFrom": {}}},
        {"dashboards": {"enabled": True, "folder": "x"}},
    ],
    ids=str,
)
def test_unknown_and_wrong_values_are_refused(chart: Chart, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError):
        chart.validate_schema(values)


def test_every_value_is_in_the_schema_and_explained(chart: Chart, root: Path) -> None:
    def paths(node: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for key, value in node.items():
            if f"{prefix}{key}" not in explained and isinstance(value, dict) and value:
                found += paths(value, f"{prefix}{key}.")
            else:
                found.append(f"{prefix}{key}")
        return found

    text = (root / "charts" / "metisfl" / "values.yaml").read_text()
    explained = dict(runpy.run_path(str(root / "hack" / "chart-readme"))["documented"](text))
    values = yaml.safe_load(text)
    assert paths(values) == list(explained)
    chart.validate_schema(values)


def test_the_readme_tells_of_these_values(root: Path) -> None:
    chart = root / "charts" / "metisfl"
    written = (chart / "README.md").read_text()
    assert written == runpy.run_path(str(root / "hack" / "chart-readme"))["readme"](chart), "run hack/chart-readme"


def environment(objects: list[dict[str, Any]]) -> dict[str, str]:
    (container,) = operator_pod(objects)["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_the_operator_understands_its_settings(render: Render) -> None:
    found = OperatorSettings.from_environment(environment(render()))
    assert found.metrics_port == 8082
    assert found.network is not None
    assert found.network.learner_egress is None
    assert found.network.http_from[0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    found = OperatorSettings.from_environment(environment(render(**CUSTOM)))
    assert found.network is not None
    assert found.network.learner_egress == ({"ports": [{"port": 5432}]},)
    found = OperatorSettings.from_environment(environment(render(networkPolicies={"enabled": False})))
    assert found.network is None


def test_the_operators_own_policy_lets_probes_and_prometheus_in(render: Render) -> None:
    objects = render()
    policy = one(objects, "NetworkPolicy")["spec"]
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (container,) = operator_pod(objects)["containers"]
    offered = {port["containerPort"] for port in container["ports"]}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == offered


def test_without_metrics_there_is_no_port_and_no_monitor_of_the_operator(render: Render) -> None:
    objects = render(metrics={"port": 0, "monitor": {"enabled": True}})
    (container,) = operator_pod(objects)["containers"]
    assert [port["name"] for port in container["ports"]] == ["health"]
    assert one(objects, "PodMonitor")["metadata"]["name"] == "metisfl-controllers"

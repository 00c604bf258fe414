"""The operator as it is deployed, with the rights of the chart's Role for one namespace and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

ROOT = Path(__file__).parents[3]
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
FEDERATION: dict[str, Any] = {
    "apiVersion": "metisfl.dev/v1alpha1",
    "kind": "Federation",
    "metadata": {"name": "demo"},
    "spec": {
        "learner": {"entrypoint": "pkg.mod:Class"},
        "learnerGroups": [{"name": "a"}],
        "controller": {"protectFromEviction": True, "storage": {"retain": True}},
    },
}


def chart_objects(namespace: str) -> dict[str, dict[str, Any]]:
    """Role, RoleBinding and the operator's Deployment, by kind."""
    with Chart.load(ROOT / "charts" / "metisfl") as chart:
        rendered = chart.render({"namespaces": [namespace]}, name="metisfl", namespace=namespace)
    texts = [text for path, text in rendered.items() if not path.endswith("NOTES.txt")]
    objects = [found for text in texts for found in yaml.safe_load_all(text) if isinstance(found, dict)]
    return {found["kind"]: found for found in objects if found.get("kind") in ("Role", "RoleBinding", "Deployment")}


def kubeconfig_of_the_account(space: Any, folder: Path) -> Path:
    """A kubeconfig with a token of the service account `metisfl`, which has no rights but those bound to it."""
    server = space.server
    space.create("serviceaccounts", {"metadata": {"name": "metisfl"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = server.request("POST", f"{space.path('serviceaccounts', 'metisfl')}/token", request)
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": answer["status"]["token"]}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_charts_role_is_all_that_the_operator_needs(
    namespace: Any, free_port: Callable[[], int], tmp_path: Path
) -> None:
    made = chart_objects(namespace.name)
    for kind, path in (("Role", "roles"), ("RoleBinding", "rolebindings")):
        namespace.server.request("POST", f"{RBAC}/{namespace.name}/{path}", made[kind])
    (container,) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    settings = {entry["name"]: entry["value"] for entry in container["env"]}
    environment = {
        **os.environ,
        **settings,
        "KUBECONFIG": str(kubeconfig_of_the_account(namespace, tmp_path)),
        "METISFL_METRICS_PORT": str(free_port()),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "kopf", "run", "--module=metisfl_operator.main", "--standalone"]
        process = subprocess.Popen(
            [*command, f"--namespace={namespace.name}"], env=environment, stdout=output, stderr=output
        )
    try:
        namespace.create("federations", FEDERATION)
        namespace.eventually("the workloads", lambda: namespace.names("statefulsets") == ["demo-a", "demo-controller"])
        namespace.eventually("a status", lambda: namespace.get("federations", "demo").get("status"))
        assert "demo-controller" in namespace.names("poddisruptionbudgets")
        assert namespace.names("networkpolicies") == ["demo--learners", "demo-controller"]
        namespace.patch("federations", "demo", {"spec": {"learnerGroups": [{"name": "b"}], "suspend": True}})
        namespace.eventually(
            "a group is pruned", lambda: namespace.names("statefulsets") == ["demo-b", "demo-controller"]
        )
        namespace.eventually("an event", lambda: "Suspended" in [event[1] for event in namespace.events()])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    refused = [line for line in log.read_text().splitlines() if "forbidden" in line.lower()]
    assert refused == []

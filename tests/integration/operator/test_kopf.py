"""The operator as it is deployed: `kopf run`, as a process of its own, against a real API server."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FEDERATION: dict[str, Any] = {
    "apiVersion": "metisfl.dev/v1alpha1",
    "kind": "Federation",
    "metadata": {"name": "demo"},
    "spec": {
        "learner": {"entrypoint": "pkg.mod:Class"},
        "learnerGroups": [{"name": "a", "replicas": 2}, {"name": "b"}],
    },
}
WORKLOADS = ["demo-a", "demo-b", "demo-controller"]


@pytest.fixture
def operator(control_plane: Any, tmp_path: Path, free_port: Callable[[], int]) -> Any:
    """Starts the operator for some namespaces; everything it started ends with the `with` block."""

    @contextmanager
    def run(*namespaces: str) -> Iterator[tuple[str, str]]:
        health = f"http://127.0.0.1:{free_port()}/healthz"
        log = tmp_path / "operator.log"
        environment = {
            **os.environ,
            "KUBECONFIG": str(control_plane.kubeconfig),
            "METISFL_CONTROLLER_IMAGE": "example.test/controller:1",
            "METISFL_LEARNER_IMAGE": "example.test/learner:1",
            "METISFL_NAMESPACES": ",".join(namespaces),
            "METISFL_METRICS_PORT": str(metrics := free_port()),
        }
        chosen = [f"--namespace={namespace}" for namespace in namespaces] or ["--all-namespaces"]
        command = [sys.executable, "-m", "kopf", "run", "--module=metisfl_operator.main", "--standalone"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, f"--liveness={health}", *chosen], env=environment, stdout=output, stderr=output
            )
        try:
            yield health, f"http://127.0.0.1:{metrics}/metrics"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()[-4000:]
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]

    return run


def wait_for_workloads(space: Any) -> None:
    space.eventually("the workloads", lambda: space.names("statefulsets") == WORKLOADS)


def condition(space: Any, kind: str) -> tuple[str, str]:
    status = space.get("federations", "demo").get("status", {})
    found = [c for c in status.get("conditions", []) if c["type"] == kind]
    return (found[0]["status"], found[0]["reason"]) if found else ("", "")


def test_from_apply_to_delete(operator: Any, namespace: Any) -> None:
    with operator(namespace.name) as (health, metrics):
        namespace.create("federations", FEDERATION)
        wait_for_workloads(namespace)

        # Timers, daemons and mandatory delete handlers would leave a finalizer that blocks namespaces for ever.
        made = namespace.eventually("kopf's own note", lambda: _handled(namespace))
        assert made["metadata"].get("finalizers", []) == []
        notes = made["metadata"]["annotations"]
        assert [key for key in notes if not key.startswith("metisfl.dev/")] == []

        # A deleted child and an edited one are repaired because their events arrive.
        first = namespace.get("statefulsets", "demo-a")["metadata"]["uid"]
        namespace.delete("statefulsets", "demo-a")
        namespace.eventually("a new StatefulSet", lambda: _uid(namespace, "demo-a") not in (None, first))
        namespace.patch("services", "demo-controller", {"spec": {"selector": {"metisfl.dev/federation": "x"}}})
        namespace.eventually("the repaired Service", lambda: _selects(namespace, "demo"))

        # A change of the spec is followed.
        namespace.patch("federations", "demo", {"spec": {"suspend": True}})
        namespace.eventually("zero replicas", lambda: _replicas(namespace) == {0})
        namespace.eventually("the condition", lambda: condition(namespace, "Suspended") == ("True", "Suspended"))

        with urllib.request.urlopen(health, timeout=20) as answer:
            assert json.loads(answer.read()) == {"watchLagSeconds": 0.0}
        namespace.eventually(
            "the metric", lambda: 'metisfl_operator_federations{state="suspended"} 1.0' in _read(metrics)
        )
        assert 'metisfl_operator_reconciles_total{result="error"} 0.0' in _read(metrics)

        namespace.delete("federations", "demo")
        for kind in ("statefulsets", "services", "configmaps", "persistentvolumeclaims", "pods"):
            namespace.eventually(f"no {kind}", lambda kind=kind: not _ours(namespace, kind))


def test_deletion_needs_no_operator(operator: Any, namespace: Any) -> None:
    with operator(namespace.name):
        namespace.create("federations", FEDERATION)
        wait_for_workloads(namespace)
        namespace.eventually("kopf's own note", lambda: _handled(namespace))
    namespace.delete("federations", "demo")
    assert namespace.find("federations", "demo") is None
    for kind in ("statefulsets", "services", "configmaps", "persistentvolumeclaims", "pods"):
        namespace.eventually(f"no {kind}", lambda kind=kind: not _ours(namespace, kind))


def test_what_happened_while_the_operator_was_down_is_caught_up(operator: Any, namespace: Any) -> None:
    namespace.create("federations", FEDERATION)
    with operator(namespace.name):
        wait_for_workloads(namespace)
        namespace.eventually("kopf's own note", lambda: _handled(namespace))
    namespace.delete("statefulsets", "demo-b")
    namespace.patch("federations", "demo", {"spec": {"suspend": True}})
    with operator(namespace.name):
        wait_for_workloads(namespace)
        namespace.eventually("zero replicas", lambda: _replicas(namespace) == {0})


def test_an_invalid_spec_is_told_and_mended(operator: Any, namespace: Any) -> None:
    wrong = copy.deepcopy(FEDERATION)
    wrong["spec"]["termination"] = {"targetMetric": {"name": "accuracy"}}
    with operator(namespace.name):
        namespace.create("federations", wrong)
        namespace.eventually("the condition", lambda: condition(namespace, "Progressing") == ("False", "InvalidSpec"))
        assert namespace.names("statefulsets") == []
        namespace.patch("federations", "demo", {"spec": {"termination": {"targetMetric": None}}})
        wait_for_workloads(namespace)
        namespace.eventually("the condition", lambda: condition(namespace, "Progressing")[0] == "True")


def test_a_wrong_setting_stops_the_operator_with_its_name(control_plane: Any) -> None:
    environment = {**os.environ, "KUBECONFIG": str(control_plane.kubeconfig), "METISFL_CONTROLLER_IMAGE": "x"}
    command = [sys.executable, "-m", "kopf", "run", "--module=metisfl_operator.main", "--standalone", "-A"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "METISFL_LEARNER_IMAGE is not set" in ended.stderr


def _handled(space: Any) -> Any:
    found = space.get("federations", "demo")
    return found if "metisfl.dev/last-handled-configuration" in found["metadata"].get("annotations", {}) else None


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def _uid(space: Any, name: str) -> str | None:
    found = space.find("statefulsets", name)
    return found["metadata"]["uid"] if found else None


def _selects(space: Any, federation: str) -> bool:
    selector: dict[str, str] = space.get("services", "demo-controller")["spec"]["selector"]
    return selector["metisfl.dev/federation"] == federation


def _replicas(space: Any) -> set[int]:
    return {space.get("statefulsets", name)["spec"]["replicas"] for name in space.names("statefulsets")}


def _ours(space: Any, kind: str) -> list[str]:
    return [name for name in space.names(kind) if name.startswith("demo")]

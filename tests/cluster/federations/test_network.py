"""What NetworkPolicies let through, tried out by pods, where the cluster's network enforces them, as kind's does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

GRPC, HTTP = 50051, 8080
LEARNER = {
    "metisfl.dev/federation": "guarded",
    "app.kubernetes.io/component": "learner",
    "metisfl.dev/group": "probe",
}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}


def test_only_those_who_have_to_reach_a_controller(
    lab: Any, run: Run, example: Example, images: Any, cluster: Any
) -> None:
    if cluster.ours:
        pytest.skip("the bridge network of hack/cluster enforces no NetworkPolicy")
    name = run(example("breast-cancer", "guarded"))
    lab.until_complete(name)
    host = f"{name}-controller.{lab.namespace}.svc"
    assert reaches(lab, images["learner"], LEARNER, host, GRPC)
    assert reaches(lab, images["learner"], PROMETHEUS, host, HTTP)
    assert not reaches(lab, images["learner"], LEARNER, host, HTTP)
    assert not reaches(lab, images["learner"], {"app.kubernetes.io/name": "stranger"}, host, GRPC)


def reaches(lab: Any, image: str, labels: dict[str, str], host: str, port: int) -> bool:
    """Whether a pod with these labels can open a connection; the pod is gone afterwards."""
    code = f"import socket; socket.create_connection(({host!r}, {port}), 10).close()"
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", code],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }
    lab.kubectl("apply", "-n", lab.namespace, "-f", "-", input=json.dumps(pod))
    try:
        return bool(lab.until("the attempt ends", lambda: ended(lab), 120) == "Succeeded")
    finally:
        lab.kubectl("delete", "pod", "probe", "-n", lab.namespace, "--force", "--grace-period=0")


def ended(lab: Any) -> str:
    phase: str = lab.kubectl("get", "pod", "probe", "-n", lab.namespace, "-o", "jsonpath={.status.phase}")
    return phase if phase in ("Succeeded", "Failed") else ""

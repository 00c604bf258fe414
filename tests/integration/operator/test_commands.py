"""The commands for clusters against a real API server, with the operator's own objects and status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from metisfl.api import FederationState
from metisfl.bundle import read_bundle
from tests.integration.operator.conftest import eventually
from tests.integration.operator.world import FEDERATION, World
from tests.unit.archive.test_archive import archive

Metisfl = Callable[..., str]

GROUPS = [*FEDERATION["spec"]["learnerGroups"], {"name": "hospital", "external": True, "maxLearners": 4}]


@pytest.fixture
def metisfl(control_plane: Any, world: World, tmp_path: Path) -> Metisfl:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "metisfl", *arguments, "-n", world.space.name],
            env={"PATH": "/usr/bin:/bin", "KUBECONFIG": str(control_plane.kubeconfig), "HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    return run


def test_a_federation_is_shown_explained_and_suspended(world: World, metisfl: Metisfl) -> None:
    world.start()
    assert "demo  Training  1/5    3/3" in metisfl("status")
    world.space.pod_says("demo-a-1", state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    world.controller.says(FederationState.TRAINING, ("a-0", "b-0"), current_round=2)
    world.later()
    world.reconcile()
    explained = metisfl("describe", "demo")
    assert "ImagePullFailed: 2 of 3 learners are connected; demo-a-1: image" in explained
    assert "check the image's name" in explained
    assert "  demo-a-1: ImagePullBackOff" in explained
    assert "Federation demo: " in explained
    # Nothing listens behind the Service here: what cannot be found out is told, and is not the end.
    assert "Not found out:\n  controller: " in explained
    assert metisfl("suspend", "demo") == "demo: suspended\n"
    world.later()
    world.reconcile()
    assert world.replicas() == {"demo-a": 0, "demo-b": 0, "demo-controller": 0}
    assert "metisfl resume demo" in metisfl("describe", "demo")
    assert metisfl("resume", "demo") == "demo: resumed\n"


def test_an_exposed_controller_has_an_address_and_bundles_name_it(
    world: World, metisfl: Metisfl, tmp_path: Path
) -> None:
    # Certificates are judged by the real time.
    world.clock[0] = datetime.now(UTC)
    world.start(learnerGroups=GROUPS, controller={"expose": {"type": "NodePort", "host": "node.example.org"}})
    world.later()
    world.reconcile()
    (port,) = world.space.get("services", "demo--sites")["spec"]["ports"]
    assert (port["name"], port["port"]) == ("grpc", 50051)
    address = f"node.example.org:{port['nodePort']}"
    assert world.status()["endpoint"] == address
    assert f"dialling {address}" in metisfl("bundle", "demo")
    assert read_bundle(tmp_path / "bundle.yaml").spec.endpoint == address
    # Another way in replaces the first one.
    world.edit(controller={"expose": {"type": "ClusterIP", "host": "tunnel.example.org", "port": 443}})
    world.later()
    world.reconcile()
    world.later()
    world.reconcile()
    assert "demo--sites" not in world.space.names("services")
    assert world.status()["endpoint"] == "tunnel.example.org:443"


def test_a_gateway_that_is_not_there_is_told(world: World) -> None:
    expose = {"type": "Gateway", "host": "fl.example.org", "gateway": {"name": "public"}}
    world.start(controller={"expose": expose}, security={"tls": {"mode": "Auto"}})
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "ApplyRejected")
    assert "this cluster has no TLSRoute" in message


def test_a_restore_that_fails_leaves_nothing(world: World, metisfl: Metisfl, tmp_path: Path) -> None:
    """There is no kubelet here, so that the pod never gets ready."""
    (tmp_path / "demo.tar").write_bytes(archive())
    told = metisfl("restore", "demo.tar", "--claim", "restored", "--timeout", "2")
    assert "pod 'restored-restore' was not ready within 2 s" in told
    eventually("the claim is gone", lambda: "restored" not in world.space.names("persistentvolumeclaims"))
    eventually("the pod is gone", lambda: "restored-restore" not in world.space.names("pods"))

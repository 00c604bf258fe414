"""An archive travels through a real API server to a pod; the test plays the kubelet, and runs the pod's program."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config

from metisfl.archive import verify
from metisfl.cluster.access import Cluster, ClusterError
from metisfl.cluster.restoring import Archive, Claim, restore
from metisfl_operator.partitions import PartitionPlan
from tests.integration.operator.conftest import eventually, free_port
from tests.integration.operator.world import World
from tests.unit.archive.test_archive import CONTENTS, archive

Restore = Callable[[Path], None]
POD = "restored-restore"


def address() -> str:
    """One of this machine's that an API server connects to: loopback it refuses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        found: str = probe.getsockname()[0]
        return found


@pytest.fixture
def restoring(control_plane: Any, world: World, monkeypatch: pytest.MonkeyPatch) -> Restore:
    monkeypatch.setattr("metisfl.cluster.restoring._PORT", free_port())

    def run(file: Path) -> None:
        manifest, sha256 = verify(file)
        with config.new_client_from_config(str(control_plane.kubeconfig)) as api:
            cluster = Cluster(api, "metisfl-test", world.space.name)
            found = Archive(file, file.stat().st_size, sha256, manifest)
            restore(cluster, found, Claim("restored", "1Gi"), "image:1", 60)

    return run


@contextmanager
def kubelet(world: World, volume: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Runs the pod once it is there, with `volume` where its own would be mounted, and says that it is ready."""
    host, started = address(), []

    def play() -> None:
        eventually("there is a pod", lambda: POD in world.space.names("pods"))
        (container,) = world.space.get("pods", POD)["spec"]["containers"]
        command = [str(volume) if part == "/var/lib/metisfl" else part for part in container["command"][1:]]
        started.append(subprocess.Popen([sys.executable, *command], env=dict(os.environ)))
        port = int(command[command.index("--port") + 1])
        eventually("it listens", lambda: listens(host, port))
        ready = {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}]}
        conditions = [{"type": "Ready", "status": "True"}]
        world.space.patch("pods", POD, {"status": {**ready, "conditions": conditions}}, "status")

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield started
    finally:
        thread.join()
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def test_an_archive_reaches_the_volume(world: World, restoring: Restore, tmp_path: Path) -> None:
    file, volume = tmp_path / "demo.tar", tmp_path / "volume"
    file.write_bytes(archive())
    volume.mkdir()
    with kubelet(world, volume) as started:
        restoring(file)
        assert started[0].wait(20) == 0, "it ends by itself"
    assert {
        str(path.relative_to(volume)): path.read_bytes() for path in volume.rglob("*") if path.is_file()
    } == CONTENTS
    claim = world.space.get("persistentvolumeclaims", "restored")
    assert PartitionPlan.parse(claim["metadata"]["annotations"]["metisfl.dev/partition-plan"]).count == 4
    eventually("the pod is gone", lambda: POD not in world.space.names("pods"))


def test_what_the_pod_refuses_is_told_and_leaves_nothing(world: World, restoring: Restore, tmp_path: Path) -> None:
    file, volume = tmp_path / "demo.tar", tmp_path / "volume"
    file.write_bytes(archive())
    (volume / "models").mkdir(parents=True)
    with kubelet(world, volume), pytest.raises(ClusterError, match="holds the state of a federation already"):
        restoring(file)
    eventually("the claim is gone", lambda: "restored" not in world.space.names("persistentvolumeclaims"))
    eventually("the pod is gone", lambda: POD not in world.space.names("pods"))

"""Learners outside of the cluster, with nothing but their bundle; and the command line against a real cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helm_python import Chart, Config

ROOT = Path(__file__).resolve().parents[3]
REFUSED = 5


@pytest.fixture
def machine(cluster: Any) -> Iterator[list[str]]:
    """What to put before a command so that it runs on a machine of its own: a network namespace behind this host.

    Without the rights to make one, or where the cluster's network is not ours, it is this host, which is outside of the
    cluster's pods as well.
    """
    if not cluster.ours or os.geteuid() != 0 or shutil.which("ip") is None:
        yield []
        return
    name, octet = f"site-{uuid.uuid4().hex[:6]}", os.getpid() % 250 + 2

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, timeout=10)

    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "out", "netns", name)
        ip("address", "add", f"10.213.{octet}.1/30", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "address", "add", f"10.213.{octet}.2/30", "dev", "out")
        ip("-n", name, "link", "set", "out", "up")
        ip("-n", name, "route", "add", "default", "via", f"10.213.{octet}.1")
        yield ["ip", "netns", "exec", name]
    finally:
        with suppress(subprocess.SubprocessError):
            ip("netns", "delete", name)


@pytest.fixture
def metisfl(kubeconfig: Path, lab: Any) -> Callable[..., str]:
    """The command with the cluster's kubeconfig; answers what it prints."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "metisfl", *arguments, "-n", lab.namespace],
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"metisfl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


def test_sites_join_from_outside_with_their_bundle_alone(
    lab: Any,
    run: Callable[..., str],
    example: Callable[..., dict[str, Any]],
    machine: list[str],
    metisfl: Callable[..., str],
    kubeconfig: Path,
    images: Mapping[str, str],
    tmp_path: Path,
) -> None:
    addresses = lab.kubectl(
        "get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}"
    )
    document = example("breast-cancer", "sites", selection={"minLearners": 3}, termination={"maxRounds": 3})
    resources = document["spec"]["learnerGroups"][0]["resources"]
    document["spec"]["learner"]["parameters"] = {"seed": "0"}
    document["spec"]["learnerGroups"] = [
        {"name": "inside", "resources": resources},
        {"name": "outside", "external": True, "maxLearners": 1},
        {"name": "chart", "external": True, "maxLearners": 1},
    ]
    document["spec"]["controller"]["expose"] = {"type": "NodePort", "host": addresses.split()[0]}
    document["spec"]["security"] = {"tls": {"mode": "Auto"}}
    name = run(document)

    waiting = lab.until("nobody of the sites has joined", lambda: _waiting(lab, name))
    assert "metisfl bundle sites --group outside" in waiting
    assert "WaitingForSites" in metisfl("describe", name)
    bundle, other = tmp_path / "outside.yaml", tmp_path / "chart.yaml"
    assert "the site runs: metisfl join outside.yaml" in metisfl(
        "bundle", name, "--group", "outside", "-o", str(bundle)
    )
    metisfl(
        *("bundle", name, "--group", "chart", "-o", str(other)),
        *("--endpoint", f"{name}-controller.{lab.namespace}.svc:50051"),
    )

    values = {"bundle": {"content": other.read_text()}, "image": {"name": images["learner"]}, "resources": resources}
    with (
        Config(kubeconfig_path=kubeconfig, namespace=lab.namespace) as helm,
        Chart.load(ROOT / "charts" / "metisfl-site") as chart,
    ):
        helm.install(chart, "clinic", values, namespace=lab.namespace)
        try:
            site = subprocess.Popen([*machine, *_join(bundle, tmp_path / "state")], cwd=tmp_path)
            try:
                lab.until_complete(name)
                assert site.wait(timeout=30) == 0
            finally:
                site.kill()
        finally:
            helm.uninstall("clinic", wait="legacy", timeout=60)
    contributions = {learner.id: learner.contributions for learner in lab.controller(name).learners}
    assert contributions == {"inside-0": 3, "outside-0": 3, "chart-0": 3}
    assert "outside-0" in metisfl("describe", name)
    assert "round committed" in metisfl("logs", name)
    assert metisfl("watch", name).splitlines()[-1].startswith("Complete: MaxRoundsReached")

    # The bundle has been used by as many learners as it is for: whoever stole it comes too late.
    stolen = subprocess.run(
        [*machine, *_join(bundle, tmp_path / "thief")],
        cwd=tmp_path,
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert stolen.returncode == REFUSED, stolen.stderr


def _join(bundle: Path, state: Path) -> list[str]:
    return [sys.executable, "-m", "metisfl", "join", str(bundle), "--state-dir", str(state)]


def _waiting(lab: Any, name: str) -> str:
    status, reason, message = lab.condition(name, "LearnersReady")
    return str(message) if (status, reason) == ("False", "WaitingForSites") else ""

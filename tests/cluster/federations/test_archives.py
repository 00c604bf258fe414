"""A federation is exported and deleted with its volume, and another one goes on from the archive."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from metisfl.archive import unpack, verify

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

# Rounds of about a second, and more of them than a test takes.
STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}
GROUP = {"name": "silo", "replicas": 1}


@pytest.mark.slow
def test_a_federation_goes_on_from_an_archive(
    lab: Any, run: Run, example: Example, images: Mapping[str, str], kubeconfig: Path, tmp_path: Path
) -> None:
    first = example("digits", "kept", training=STEADY, termination={"maxRounds": 100_000}, learnerGroups=[GROUP])
    first["spec"]["learner"]["partitions"] = 3
    first["spec"]["selection"] = {"minLearners": 1}
    run(first)
    lab.until("the second round", lambda: lab.status("kept").get("currentRound", 0) >= 2)
    file = tmp_path / "kept.tar"
    metisfl(kubeconfig, lab.namespace, "export", "kept", "-o", str(file))
    manifest, _ = verify(file)
    assert manifest.version >= 2
    stored = {Path(m.name).name: m.sha256 for m in manifest.members if m.name.startswith("models/")}
    lab.delete("kept")

    told = metisfl(kubeconfig, lab.namespace, "restore", str(file), "--image", images["controller"])
    assert told.rstrip().endswith("spec.controller.storage.existingClaim: kept-restored")
    pods = ("get", "pods", "-n", lab.namespace, "-o", "name")
    lab.until("what restored it is gone", lambda: "pod/kept-restored-restore" not in lab.kubectl(*pods).split())
    claim = json.loads(lab.kubectl("get", "pvc", "kept-restored", "-n", lab.namespace, "-o", "json"))
    plan = json.loads(claim["metadata"]["annotations"]["metisfl.dev/partition-plan"])
    assert plan == {"count": 3, "offsets": {"silo": 0}, "sizes": {"silo": 1}}

    second = example("digits", "again", training=STEADY, termination={"maxRounds": 100_000}, learnerGroups=[GROUP])
    second["spec"]["learner"]["partitions"] = 3
    second["spec"]["selection"] = {"minLearners": 1}
    second["spec"]["controller"] = {"storage": {"existingClaim": "kept-restored"}}
    try:
        run(second)
        goal = manifest.version + 1
        lab.until("the next round", lambda: lab.status("again").get("currentRound", 0) >= goal)
        numbers = [entry.number for entry in lab.rounds("again")]
        assert numbers[:goal] == list(range(1, goal + 1)), "the rounds of before are there"
        metisfl(kubeconfig, lab.namespace, "export", "again", "-o", str(tmp_path / "again.tar"))
        with (tmp_path / "again.tar").open("rb") as later:
            unpack(later, tmp_path / "state")
        with closing(sqlite3.connect(tmp_path / "state" / "history.sqlite")) as history:
            committed = dict(history.execute("SELECT file, sha256 FROM versions"))
        assert {file: committed[file] for file in stored} == stored
    finally:
        lab.kubectl("delete", "mfed", "again", "-n", lab.namespace, "--ignore-not-found", "--timeout=60s", timeout=70)
        lab.kubectl("delete", "pvc", "kept-restored", "-n", lab.namespace, "--timeout=120s", timeout=130)


def metisfl(kubeconfig: Path, namespace: str, *arguments: str) -> str:
    """As a user would call it."""
    command = [str(Path(sys.executable).parent / "metisfl"), *arguments, "-n", namespace]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout

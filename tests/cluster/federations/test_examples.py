"""The promise of the README: one file applied, pods train, the model can be fetched, and nothing is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Example = Callable[..., dict[str, Any]]


def test_both_examples_at_once_in_two_namespaces(
    lab: Any, other_lab: Any, example: Example, kubeconfig: Path, tmp_path: Path
) -> None:
    lab.apply(example("digits"))
    other_lab.apply(example("breast-cancer"))
    for place, name, least in ((lab, "digits", 0.95), (other_lab, "breast-cancer", 0.95)):
        status = place.until_complete(name)
        metrics = {metric["name"]: float(metric["value"]) for metric in status["metrics"]}
        assert metrics["accuracy"] >= least
        assert status["globalModel"]["version"] == status["currentRound"]
        assert place.federation(name)["metadata"].get("finalizers", []) == []

        # Learners go, the controller stays and serves the model to people.
        place.until("learners are gone", lambda p=place, n=name: p.pods(n) == [f"{n}-controller-0"])
        model = fetch(kubeconfig, place.namespace, name, tmp_path / f"{name}.safetensors")
        assert hashlib.sha256(model.read_bytes()).hexdigest() == status["globalModel"]["sha256"]
        tensors = load_file(model)
        assert tensors
        assert all(np.isfinite(tensor).all() for tensor in tensors.values())

    lab.delete("digits")
    with operator_away(lab):
        other_lab.delete("breast-cancer")
        other_lab.until("nothing is left, without the operator", lambda: not other_lab.left("breast-cancer"), 60)
    lab.until("nothing is left", lambda: not lab.left("digits"), 60)


@contextmanager
def operator_away(lab: Any) -> Iterator[None]:
    deployment = ("deployment/metisfl", "-n", "metisfl-system")
    lab.kubectl("scale", *deployment, "--replicas=0")
    try:
        lab.until("the operator is away", lambda: not lab.kubectl("get", "pods", "-n", "metisfl-system", "-o", "name"))
        yield
    finally:
        lab.kubectl("scale", *deployment, "--replicas=1")
        lab.kubectl("rollout", "status", *deployment, "--timeout=90s", timeout=100)


def fetch(kubeconfig: Path, namespace: str, name: str, target: Path) -> Path:
    """`metisfl model get`, as a user would call it."""
    metisfl = Path(sys.executable).parent / "metisfl"
    command = [metisfl, "model", "get", name, "-n", namespace, "-o", target]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_the_samples_are_taken(lab: Any) -> None:
    """By a server-side dry run: the schema that is installed agrees with the files that are shipped."""
    folder = Path(__file__).resolve().parents[3] / "manifests" / "samples"
    for sample in folder.glob("*.yaml"):
        done = lab.kubectl("create", "--dry-run=server", "-n", lab.namespace, "-f", str(sample), "-o", "json")
        assert json.loads(done)["kind"] == "Federation"

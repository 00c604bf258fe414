"""The promise of the README: one file applied, pods train, the model can be fetched, and nothing is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
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

        place.delete(name)
        place.until("nothing is left", lambda p=place, n=name: not p.left(n), 60)


def test_a_table_row_tells_how_it_goes(lab: Any, example: Example) -> None:
    """What `kubectl get mfed` prints is what a person watches: rounds advance in it, one status write at a time."""
    slow = example(
        "digits", training={"epochs": 25, "batchSize": 8, "learningRate": "0.05"}, termination={"maxRounds": 12}
    )
    lab.apply(slow)
    seen: list[str] = []

    def advanced() -> bool:
        row = shown(lab.kubectl("get", "mfed", "digits", "-n", lab.namespace, "-o", "wide"))
        if row["ROUND"] not in seen:
            seen.append(row["ROUND"])
        return row["COMPLETE"] == "True"

    lab.until("it is complete", advanced, 240)
    rounds = [int(number) for number in seen if number]
    assert rounds == sorted(rounds)
    assert len([number for number in rounds if 0 < number < 12]) >= 2, seen
    row = shown(lab.kubectl("get", "mfed", "digits", "-n", lab.namespace))
    assert list(row) == ["NAME", "COMPLETE", "ROUND", "ROUNDS", "LEARNERS", "METRIC", "AGE"]
    assert (row["NAME"], row["COMPLETE"], row["ROUND"], row["ROUNDS"]) == ("digits", "True", "12", "12")
    assert float(row["METRIC"]) > 0.5


def shown(table: str) -> dict[str, str]:
    """The one row that kubectl printed, by column; a cell may be empty."""
    header, row = table.splitlines()
    starts = [found.start() for found in re.finditer(r"\S+", header)]
    ends = [*starts[1:], None]
    return {header[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}


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

"""`metisfl run` with the controller and learners that also run in pods."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from metisfl.api import FederationDocument
from metisfl.api.access import token_headers
from metisfl.archive import verify
from metisfl.local.record import RunRecord
from tests.integration.local.runs import Run, Starter, eventually, processes_of

EXAMPLES = Path(__file__).parents[3] / "examples"


def summary_of(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def record_of(run: Run) -> RunRecord:
    return RunRecord.model_validate_json((run.output / "summary.json").read_text())


def training(run: Run, name: str, after_round: int) -> bool:
    """Whether the controller sees this learner at work on a round after that one."""
    endpoints = run.output / "endpoints.json"
    if not endpoints.exists():
        return False
    token = (run.output / "api-token").read_text()
    with httpx.Client(trust_env=False, headers=token_headers(token)) as client:
        response = client.get(f"http://{json.loads(endpoints.read_text())['http']}/v1/federation")
    document = FederationDocument.model_validate_json(response.content)
    busy = {learner.id for learner in document.learners if learner.activity == "Training"}
    return document.committed_rounds >= after_round and name in busy


def nothing_runs(run: Run) -> None:
    eventually(lambda: not processes_of(run.output), "every process of the run has ended", 10)


@pytest.mark.parametrize(
    ("example", "accuracy"), [("digits", 0.95), pytest.param("breast-cancer", 0.95, marks=pytest.mark.slow)]
)
def test_an_example_trains_to_its_accuracy(example: str, accuracy: float, tmp_path: Path) -> None:
    output = tmp_path / "out"
    file = EXAMPLES / example / "federation.yaml"
    options = ["--output", str(output), "--json", "--no-progress"]
    done = subprocess.run(
        [sys.executable, "-m", "metisfl", "run", str(file), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    summary = summary_of(done.stdout)
    assert summary["complete"] is True
    assert summary["metrics"]["accuracy"] >= accuracy
    model = Path(summary["model"])
    assert all(np.isfinite(tensor).all() for tensor in load_file(model).values())
    record = RunRecord.model_validate_json((output / "summary.json").read_text())
    assert record.document.global_model is not None
    assert hashlib.sha256(model.read_bytes()).hexdigest() == record.document.global_model.sha256
    with sqlite3.connect(output / "history.sqlite") as history:
        assert history.execute("select count(*) from rounds").fetchone() == (summary["rounds"],)
    assert (output / "report.html").stat().st_size > 10_000
    assert processes_of(output) == {}


def test_a_learner_killed_in_mid_round_rejoins_and_the_federation_completes(start_real: Starter) -> None:
    run = start_real("--json")
    eventually(lambda: training(run, "silo-a-1", after_round=1), "the learner trains", 60)
    os.kill(processes_of(run.output)["silo-a-1"], signal.SIGKILL)
    code, out, err = run.finish()
    assert code == 0, err
    assert summary_of(out)["rounds"] == 8
    record = record_of(run)
    assert record.restarts["silo-a-1"] == 1
    assert [entry.number for entry in record.rounds] == list(range(1, 9))
    assert "silo-a-1" in record.rounds[-1].contributors, "it took part again"
    nothing_runs(run)


@pytest.mark.slow
def test_a_controller_killed_in_mid_round_goes_on_at_its_last_commit(start_real: Starter) -> None:
    run = start_real("--json")
    eventually(lambda: training(run, "silo-a-1", after_round=2), "the third round", 60)
    os.kill(processes_of(run.output)["controller"], signal.SIGKILL)
    code, out, err = run.finish()
    assert code == 0, err
    record = record_of(run)
    assert [entry.number for entry in record.rounds] == list(range(1, 9))
    assert record.document.incarnation == 2
    assert record.restarts == {"controller": 1, "silo-a-0": 0, "silo-a-1": 0, "silo-b-0": 0}
    assert summary_of(out)["metrics"]["loss"] < 0.1
    nothing_runs(run)


@pytest.mark.slow
def test_an_interrupted_run_resumes_where_it_was(start_real: Starter) -> None:
    run = start_real("--json")
    eventually(lambda: training(run, "silo-b-0", after_round=2), "the third round", 60)
    run.process.send_signal(signal.SIGINT)
    code, _, err = run.finish()
    assert code == 130, err
    nothing_runs(run)
    code, out, err = start_real("--json", "--resume").finish()
    assert code == 0, err
    assert summary_of(out)["rounds"] == 8
    with sqlite3.connect(run.output / "history.sqlite") as history:
        assert history.execute("select count(*) from rounds").fetchone() == (8,)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_another_run_goes_on_from_an_archive_of_one_that_trains(start_real: Starter) -> None:
    first = start_real("--json")
    eventually(lambda: training(first, "silo-b-0", after_round=2), "the third round", 120)
    endpoints = json.loads((first.output / "endpoints.json").read_text())
    with httpx.Client(trust_env=False, headers=token_headers((first.output / "api-token").read_text())) as client:
        (start_real.folder / "lines.tar").write_bytes(client.get(f"http://{endpoints['http']}/v1/archive").content)
    manifest, _ = verify(start_real.folder / "lines.tar")
    assert manifest.version >= 2
    first.process.send_signal(signal.SIGINT)
    first.finish(120)
    second = start_real("--json", "--from", "lines.tar", output="second")
    code, out, err = second.finish(120)
    assert code == 0, err
    assert summary_of(out)["rounds"] == 8
    with sqlite3.connect(second.output / "history.sqlite") as history:
        committed = dict(history.execute("select version, sha256 from versions"))
        assert history.execute("select count(*) from rounds").fetchone() == (8,)
    with sqlite3.connect(first.output / "history.sqlite") as history:
        before = dict(history.execute("select version, sha256 from versions"))
    for version in range(manifest.version + 1):
        assert committed[version] == before[version]
    nothing_runs(second)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner.entrypoint=no_such_module:Learner", "no module 'no_such_module'"),
        pytest.param("learner.entrypoint=line_learner:Lerner", "Lerner", marks=pytest.mark.slow),
        pytest.param("learner.parameters.fails_in_round=2", "these points lie on no line", marks=pytest.mark.slow),
        ("learnerGroups.silo-b.parameters={width: '2'}", "slope"),
    ],
    ids=["module", "class", "training", "shape"],
)
def test_a_learner_that_cannot_work_is_explained_on_the_terminal(start_real: Starter, override: str, said: str) -> None:
    run = start_real("--no-progress", "--set", override, "--set", "termination.maxRounds=1000")
    code, out, _ = run.finish()
    assert code == 1
    assert "the last lines of out/logs/silo-" in out
    assert said in out
    assert f"--set {shlex.quote(override)}" in out.splitlines()[-1], "the way to go on keeps the overrides"
    nothing_runs(run)

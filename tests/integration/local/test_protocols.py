"""`metisfl run` with each protocol: one learner of three is slow, and all of them learn the line."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from metisfl.local.record import RunRecord
from tests.integration.local.runs import REAL_FEDERATION, Starter

FAST_SECONDS = 0.02
"""Of a batch; what slow learners take is beside the protocols."""

PROTOCOLS = {
    "over-selection": "{type: Synchronous, synchronous: {overSelect: 1, lateUpdates: NextRound}}",
    "SemiSynchronous": "{type: SemiSynchronous, semiSynchronous: {lambda: '2'}}",
    "FedAsync": "{type: Asynchronous}",
    "FedBuff": "{type: Asynchronous, asynchronous: {bufferSize: 3, mixing: '1'}}",
}
SLOW_SECONDS = {"over-selection": 0.03, "SemiSynchronous": 0.08, "FedAsync": 0.08, "FedBuff": 0.08}
VERSIONS = {"over-selection": 12, "SemiSynchronous": 6, "FedAsync": 36, "FedBuff": 12}
UPDATES = {"over-selection": 2, "SemiSynchronous": 3, "FedAsync": 1, "FedBuff": 3}
"""In each version."""


@pytest.fixture
def start_lines(start_real: Starter) -> Starter:
    document = REAL_FEDERATION.replace('{seconds: "0.5"}', f'{{batch_seconds: "{FAST_SECONDS}"}}').replace(
        "{name: silo-b, replicas: 1}",
        '{name: silo-b, replicas: 1, parameters: {batch_seconds: "SLOW"}}',
    )
    start_real.file.write_text(
        document.replace("epochs: 5", "batchSize: 12").replace(
            "{synchronous: {quorumPercent: 60, roundDeadlineSeconds: 30}}", "PROTOCOL"
        )
    )
    return start_real


def rows(output: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(output / "history.sqlite")) as database:
        return database.execute(query).fetchall()


@pytest.mark.parametrize(
    "protocol",
    [
        "SemiSynchronous",
        "FedBuff",
        pytest.param("over-selection", marks=pytest.mark.slow),
        pytest.param("FedAsync", marks=pytest.mark.slow),
    ],
)
def test_a_run(start_lines: Starter, protocol: str) -> None:
    text = start_lines.file.read_text().replace("PROTOCOL", PROTOCOLS[protocol])
    start_lines.file.write_text(text.replace("SLOW", str(SLOW_SECONDS[protocol])))
    run = start_lines("--set", f"termination.maxRounds={VERSIONS[protocol]}", "--no-progress")
    status, out, error = run.finish(120)
    assert status == 0, (out, error)
    record = RunRecord.model_validate_json((run.output / "summary.json").read_text())
    (loss,) = record.document.metrics
    assert (loss.version, loss.examples) == (VERSIONS[protocol], 36)
    assert loss.value < 0.05
    (counted,) = rows(run.output, "SELECT count(DISTINCT id), count(*) FROM tasks")
    assert counted == (UPDATES[protocol] * VERSIONS[protocol],) * 2
    learners = {learner.id: learner for learner in record.document.learners}
    if protocol == "SemiSynchronous":
        # Two epochs of the slow learner, of four batches each; the others do more in the time.
        batches = dict(
            rows(run.output, "SELECT learner, avg(batches) FROM participants WHERE round > 1 GROUP BY learner")
        )
        assert batches["silo-b-0"] == 8
        assert batches["silo-a-0"] > 16
    else:
        # Nobody waits for the slow one, and it is heard all the same.
        assert learners["silo-b-0"].contributions >= 1
        assert max(entry.staleness for entry in record.rounds) > 0

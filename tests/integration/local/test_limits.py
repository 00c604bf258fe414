"""What a run does when it has waited long enough, with limits short enough to see it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metisfl.local.folder import RunFolder
from metisfl.local.outcome import Outcome
from metisfl.local.plan import Surroundings
from metisfl.local.progress.display import Snapshot
from metisfl.local.record import RunRecord
from metisfl.local.run import run_federation
from metisfl.local.session import Limits
from metisfl.spec import Federation, load_federation
from tests.integration.local.runs import FAKES, FEDERATION, processes_of


@dataclass
class Notes:
    """A display that keeps what must not be missed."""

    texts: list[str] = field(default_factory=list)

    def open(self, federation: Federation, output: str) -> None:
        """Nothing to show."""

    def update(self, snapshot: Snapshot) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        self.texts.append(text)

    def close(self) -> None:
        """Nothing to close."""


def run_with(tmp_path: Path, plan: dict[str, Any], limits: Limits) -> tuple[Outcome, Notes]:
    file = tmp_path / "federation.yaml"
    file.write_text(FEDERATION)
    federation = load_federation(file)
    folder = RunFolder(tmp_path / "out")
    uid = folder.prepare(federation, resume=False)
    environment = dict(os.environ) | {"PYTHONPATH": str(FAKES), "FAKE_PLAN": json.dumps(plan)}
    surroundings = Surroundings(environment, 2, [tmp_path])
    notes = Notes()
    outcome = run_federation(federation, folder, uid, surroundings, notes, _no_report, limits)
    assert processes_of(folder.root) == {}
    return outcome, notes


def _no_report(record: RunRecord, target: Path) -> None:
    target.write_text(record.ending)


def test_a_controller_that_falls_silent_ends_the_run(tmp_path: Path) -> None:
    outcome, _ = run_with(tmp_path, {"controller": {"mute": True}}, Limits(silence=1, stop=1, poll=0.05))
    assert outcome.exit_code == 1
    assert outcome.message == "the controller has not answered for 1 second"
    assert not outcome.final


def test_a_learner_that_stays_after_the_end_is_stopped_and_the_run_is_complete(tmp_path: Path) -> None:
    plan = {"learners": {"silo-b-0": {"stubborn": True}}}
    outcome, notes = run_with(tmp_path, plan, Limits(farewell=0.5, stop=0.5, poll=0.05))
    assert outcome.complete
    assert outcome.exit_code == 0
    assert notes.texts == ["silo-b-0 did not end by itself and is stopped"]


def test_a_learner_that_dies_again_and_again_ends_the_run(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("metisfl.local.restarts._FIRST_DELAY_SECONDS", 0.01)
    outcome, notes = run_with(tmp_path, {"learners": {"silo-b-0": {"signal": 11}}}, Limits(stop=1, poll=0.05))
    assert outcome.exit_code == 1
    assert outcome.message == "silo-b-0 ended: it was ended by SIGSEGV, after 5 restarts"
    assert sum("started again" in text for text in notes.texts) == 5
    assert outcome.failed_process is not None
    assert outcome.failed_process.name == "silo-b-0"

"""What a run tells at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from metisfl.local.folder import RunFolder
from metisfl.local.outcome import Outcome, told


@pytest.mark.parametrize(
    ("final", "rounds", "interrupted", "offered"),
    [(False, 3, False, True), (False, 0, True, True), (False, 0, False, False), (True, 3, False, False)],
)
def test_a_run_that_can_go_on_says_how(
    tmp_path: Path, final: bool, rounds: int, interrupted: bool, offered: bool
) -> None:
    outcome = Outcome(
        complete=False,
        final=final,
        reason="ProcessFailed",
        message="silo-0 ended",
        rounds=rounds,
        seconds=1.0,
        interrupted=interrupted,
    )
    lines = told(outcome, RunFolder(tmp_path), "metisfl run f.yaml --resume")
    assert ("go on with: metisfl run f.yaml --resume" in lines) == offered

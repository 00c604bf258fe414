"""What a run tells at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from metisfl.local.folder import RunFolder
from metisfl.local.outcome import Outcome, told


@pytest.mark.parametrize(
    ("final", "interrupted", "last"),
    [
        (False, True, "go on with: metisfl run f.yaml --resume"),
        (False, False, "once that is mended, go on with: metisfl run f.yaml --resume"),
        (True, False, None),
    ],
)
def test_a_run_that_can_go_on_says_how(tmp_path: Path, final: bool, interrupted: bool, last: str | None) -> None:
    outcome = Outcome(
        complete=False,
        final=final,
        reason="ProcessFailed",
        message="silo-0 ended",
        rounds=3,
        seconds=1.0,
        interrupted=interrupted,
    )
    lines = told(outcome, RunFolder(tmp_path), "metisfl run f.yaml --resume")
    assert [line for line in lines if "go on with" in line] == ([last] if last else [])

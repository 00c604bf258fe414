"""From a measurement to the page, for real with the smallest of the plan."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.report import page
from benchmarks.suite import __main__ as suite
from benchmarks.suite.records import RESULTS, read

ROOT = RESULTS.parents[1]
QUICK = ["aggregate-10x1M-uniform16", "round-10x100k"]


def test_what_was_measured_stands_on_the_page(tmp_path: Path) -> None:
    chosen = [f"--only={name}" for name in QUICK]
    command = [sys.executable, "-m", "benchmarks.suite", *chosen, "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr

    text = page.render(tmp_path, tmp_path / "images")

    for start in ("| 10 × 1M | uniform16 | ", "| 10 × 100k | "):
        lines = [line for line in text.splitlines() if line.startswith(start)]
        assert lines, start
        assert "not measured yet" not in lines[0]
    assert {path.stem for path in (tmp_path / "images").glob("*.svg")} == {"bench-aggregate", "bench-round"}


def test_a_failure_is_written_down_without_this_machines_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "METISFL", Path("/bin/false"))

    done = CliRunner().invoke(suite.main, ["--only", QUICK[0], "--output", str(tmp_path)])

    assert done.exit_code == 1
    assert f"1 of 1 failed: {QUICK[0]}" in done.output
    record = read(tmp_path, QUICK[0])
    assert record is not None
    assert (record.result, record.failed) == (None, "exit status 1")


def test_a_pattern_that_names_nothing_is_refused() -> None:
    done = CliRunner().invoke(suite.main, ["--only", "nothing-*"])

    assert done.exit_code == 2
    assert "--list tells them" in done.output

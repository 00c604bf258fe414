"""Real runs, as a user would start them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metisfl.local.record import RunRecord

LIMIT_SECONDS = 600.0


@dataclass(frozen=True)
class Trace:
    """How a run went: one metric of every version that was evaluated, and the wall-clock time of the rounds."""

    values: Mapping[int, float]
    seconds: Mapping[int, float]
    """From the beginning of the first round to the end of the one that made a version."""

    @property
    def last(self) -> float:
        return self.values[max(self.values)]


def run(file: Path, overrides: Mapping[str, str], metric: str = "accuracy") -> Trace:
    """Run a Federation file to its end, with `--set` for each override. Raises RuntimeError when it fails."""
    with tempfile.TemporaryDirectory(prefix="metisfl-experiment-") as name:
        output = Path(name) / "run"
        command = [sys.executable, "-m", "metisfl", "run", str(file), "--output", str(output), "--no-progress"]
        for path, value in overrides.items():
            command += ["--set", f"{path}={value}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        record = RunRecord.model_validate_json((output / "summary.json").read_text())
    return _trace(record, metric)


def _trace(record: RunRecord, metric: str) -> Trace:
    values = {each.version: found.value for each in record.rounds for found in each.metrics if found.name == metric}
    began = min((each.started_at for each in record.rounds), default=record.created_at)
    return Trace(values, {each.version: (each.ended_at - began).total_seconds() for each in record.rounds})

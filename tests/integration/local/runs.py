"""Start `metisfl run` as users do, as a process, with stand-ins for controller and learners."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAKES = Path(__file__).parent / "fakes"

FEDERATION = """
apiVersion: metisfl.dev/v1alpha1
kind: Federation
metadata: {name: fake}
spec:
  learner: {entrypoint: "nothing:Nothing"}
  termination: {maxRounds: 4}
  learnerGroups:
    - {name: silo-a, replicas: 2}
    - {name: silo-b, replicas: 1}
"""

REAL_FEDERATION = """
apiVersion: metisfl.dev/v1alpha1
kind: Federation
metadata: {name: lines}
spec:
  learner:
    entrypoint: line_learner:LineLearner
    parameters: {seconds: "0.5"}
  training: {epochs: 5, learningRate: "0.1"}
  protocol: {synchronous: {quorumPercent: 60, roundDeadlineSeconds: 30}}
  termination: {maxRounds: 8}
  learnerGroups:
    - {name: silo-a, replicas: 2}
    - {name: silo-b, replicas: 1}
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """The first true value of `condition`, which must come within the time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def processes_of(output: Path) -> dict[str, int]:
    """Processes that run now for the run in `output`, by name, found by their settings."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            settings = dict(part.split("=", 1) for part in (entry / "environ").read_text().split("\0") if "=" in part)
        except (OSError, UnicodeDecodeError):
            continue
        state_dir = Path(settings.get("METISFL_STATE_DIR", "/nowhere"))
        if state_dir == output:
            found["controller"] = int(entry.name)
        elif state_dir.parent == output / "learners":
            found[state_dir.name] = int(entry.name)
    return {name: pid for name, pid in found.items() if alive(pid)}


@dataclass
class Run:
    """One `metisfl run` and the folder it writes to."""

    process: subprocess.Popen[str]
    output: Path

    def finish(self, seconds: float = 60.0) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def pids(self) -> dict[str, list[int]]:
        """Every process that was ever started, by name."""
        found: dict[str, list[int]] = {}
        file = self.output / "fake-pids"
        for line in file.read_text().splitlines() if file.exists() else []:
            name, pid = line.split()
            found.setdefault(name, []).append(int(pid))
        return found

    def rounds(self) -> int:
        file = self.output / "fake-rounds.json"
        return len(json.loads(file.read_text())) if file.exists() else 0

    def assert_nothing_runs(self, seconds: float = 5.0) -> None:
        everything = [pid for pids in self.pids().values() for pid in pids]
        assert everything, "no process was started at all"
        eventually(lambda: not any(map(alive, everything)), "every process of the run has ended", seconds)


class Starter:
    """Starts runs in a folder; ends those that a failed test leaves behind."""

    def __init__(self, folder: Path, federation: str, python_path: str) -> None:
        self.folder = folder
        self.file = folder / "federation.yaml"
        self.file.write_text(federation)
        self.python_path = python_path
        self.runs: list[Run] = []

    def __call__(self, *options: str, plan: dict[str, Any] | None = None, output: str = "out") -> Run:
        environment = os.environ | {
            "PYTHONPATH": self.python_path,
            "FAKE_PLAN": json.dumps(plan or {}),
            "METISFL_STATE_DIR": "/nowhere",
        }
        environment.pop("OMP_NUM_THREADS", None)
        process = subprocess.Popen(
            [sys.executable, "-m", "metisfl", "run", str(self.file), "--output", output, *options],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.runs.append(Run(process, self.folder / output))
        return self.runs[-1]

    def end(self) -> None:
        for run in self.runs:
            if run.process.poll() is None:
                run.process.kill()
            if run.process.stdout and not run.process.stdout.closed:
                run.process.communicate()

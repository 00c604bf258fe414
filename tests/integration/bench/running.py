"""`metisfl bench` as users run it: a process whose last line is one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

METISFL = Path(sys.executable).with_name("metisfl")
SECONDS = 110


def bench(*arguments: str) -> dict[str, Any]:
    """The JSON of the last line; fails with what the command said where it fails."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["benchmark"] == arguments[0]
    assert {"cpu", "cores", "memory_gib", "kernel", "python", "versions"} <= result["machine"].keys()
    return result


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(METISFL), "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)

"""An environment for each of the other systems, in a folder that git ignores, and the processes that run in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.compare.children import CompareError, stop
from benchmarks.compare.plan import Setup
from benchmarks.compare.work import Work

ROOT = Path(__file__).parents[2]
CACHE = Path(__file__).parent / ".cache"
SHORT_WAITS = Path(__file__).parent / "short_waits"

REQUIREMENTS = {"flower": "flwr==1.42.0", "nvflare": "nvflare==2.9.0"}
INSTALL_SECONDS = 900
SPARE_SECONDS = 120
"""For a system's process beyond the work's own limit: it ends by itself unless something hangs."""

_VERSIONS = """
import importlib.metadata, json, sys
def version(name):
    try: return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def python_of(system: str, tell: Callable[[str], None]) -> Path:
    """The interpreter that has this system; installs it with pip when it is not there. Raises CompareError."""
    if system == "metisfl":
        return Path(sys.executable)
    requirement = REQUIREMENTS[system]
    name, version = requirement.split("==")
    folder = CACHE / system
    python = folder / "bin" / "python"
    if python.exists() and versions(python, name)[name] == version:
        return python
    tell(f"installing {requirement}, a minute or two")
    _install([sys.executable, "-m", "venv", "--clear", str(folder)], requirement)
    _install([str(python), "-m", "pip", "install", "--quiet", requirement, "numpy"], requirement)
    return python


def versions(python: Path, *packages: str) -> dict[str, str | None]:
    """Versions of packages in an interpreter's environment; None where one is missing."""
    result = subprocess.run([python, "-c", _VERSIONS, *packages], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, str | None] = json.loads(result.stdout)
    return found


def measure(python: Path, mode: str, setup: Setup, work: Work) -> list[dict[str, Any]]:
    """Results of a system's own process: `mode` is aggregate or round. Raises CompareError."""
    command = [str(python), "-m", f"benchmarks.compare.systems.{setup.system}", mode, work.to_json(), *setup.options]
    path = [str(SHORT_WAITS)] * setup.short_waits + [str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate(timeout=work.seconds + SPARE_SECONDS)
        except BaseException as error:
            stop(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CompareError(f"not done after {work.seconds + SPARE_SECONDS:g} s") from None
            raise
    if process.returncode:
        raise CompareError(f"the process ended with status {process.returncode}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    if "error" in answer:
        raise CompareError(answer["error"])
    results: list[dict[str, Any]] = answer["results"]
    return results


def _install(command: list[str], requirement: str) -> None:
    try:
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS, stdout=sys.stderr)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise CompareError(f"{requirement} could not be installed: {error}") from error

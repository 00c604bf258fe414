"""How much memory this process may use: a pod's limit is a cgroup's, which the machine's total does not show."""

from __future__ import annotations

from pathlib import Path

from metisfl_controller import cgroups

_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}


def available_memory(root: Path = cgroups.ROOT, proc: Path = cgroups.PROC) -> int:
    """The machine's memory, or the smallest limit of the cgroups (version 1 or 2) around this process, in bytes."""
    limits = [_machine(proc)]
    for version, folder in cgroups.folders("memory", root, proc):
        if (limit := _limit(folder / _FILES[version])) is not None:
            limits.append(limit)
    return min(limits)


def _machine(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{proc / 'meminfo'} does not say how much memory there is")


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    # Version 1 says "no limit" with a number beyond any machine, which the minimum takes care of.
    return int(text) if text.isdigit() else None

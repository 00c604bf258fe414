"""How many CPUs this process may really use: a pod's limit is a cgroup quota that os.cpu_count() does not know."""

from __future__ import annotations

import math
import os
from pathlib import Path

from metisfl_controller import cgroups


def available_cpus(root: Path = cgroups.ROOT, proc: Path = cgroups.PROC) -> int:
    """The smaller of the CPU affinity and the smallest quota of the cgroups (version 1 or 2) around this process,
    rounded up, at least 1."""
    limits = [float(len(os.sched_getaffinity(0)))]
    for version, folder in cgroups.folders("cpu", root, proc):
        if (quota := _quota_v2(folder) if version == 2 else _quota_v1(folder)) is not None:
            limits.append(quota)
    return max(1, math.ceil(min(limits)))


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None

"""How much memory this process may use: a pod's limit is a cgroup's, which the machine's total does not show."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def available_memory(root: Path = _ROOT, proc: Path = _PROC) -> int:
    """The machine's memory, or the smallest limit of the cgroups (version 1 or 2) around this process, in bytes.

    Limits are nested: that of any parent counts as well. In a container the parents are out of sight, and the
    container's own cgroup is where the root would be.
    """
    limits = [_machine(proc)]
    for hierarchy, file, path in _cgroups(root, proc):
        folder = PurePosixPath(path.lstrip("/"))
        for part in (folder, *folder.parents):
            if (limit := _limit(hierarchy / part / file)) is not None:
                limits.append(limit)
    return min(limits)


def _machine(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{proc / 'meminfo'} does not say how much memory there is")


def _cgroups(root: Path, proc: Path) -> list[tuple[Path, str, str]]:
    """Where limits of this process may stand: hierarchy, the limit's file name, and the path in the hierarchy."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            found.append((root, "memory.max", path))
        elif "memory" in controllers.split(","):
            found.append((root / "memory", "memory.limit_in_bytes", path))
    return found


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    # Version 1 says "no limit" with a number beyond any machine, which the minimum takes care of.
    return int(text) if text.isdigit() else None

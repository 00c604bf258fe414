"""Where the kernel keeps this process's limits: a pod's are a cgroup's, which the machine's totals do not show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def folders(controller: str, root: Path = ROOT, proc: Path = PROC) -> Iterator[tuple[int, Path]]:
    """The version of cgroups, 1 or 2, and the folder of each cgroup around this process that `controller` ("cpu",
    "memory") may limit.

    Limits are nested: that of any parent counts as well. In a container the parents are out of sight, and the
    container's own cgroup is where the root would be.
    """
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            version, hierarchy = 2, root
        elif controller in controllers.split(","):
            version, hierarchy = 1, root / controller
        else:
            continue
        folder = PurePosixPath(path.lstrip("/"))
        for part in (folder, *folder.parents):
            yield version, hierarchy / part

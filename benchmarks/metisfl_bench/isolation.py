"""What the kernel lends for a measurement: a memory cgroup, and a network whose link is as slow as asked for."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metisfl_bench.processes import BenchError

_CGROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_cgroup(limit_bytes: int | None) -> Iterator[Path | None]:
    """A cgroup (version 1 or 2) with this limit, or None without one. Raises BenchError where that is not allowed."""
    if limit_bytes is None:
        yield None
        return
    version1 = _CGROUPS / "memory"
    parent, limit = (version1, "memory.limit_in_bytes") if version1.is_dir() else (_CGROUPS, "memory.max")
    group = parent / f"metisfl-bench-{os.getpid()}"
    try:
        group.mkdir()
        try:
            (group / limit).write_text(str(limit_bytes))
        except OSError:
            group.rmdir()
            raise
    except OSError as error:
        raise BenchError(f"no memory limit can be set here ({error}): it takes root and a writable cgroup") from error
    try:
        yield group
    finally:
        group.rmdir()


@dataclass(frozen=True)
class Network:
    """Where the controller listens, and what its command begins with."""

    host: str
    prefix: Sequence[str]


@contextlib.contextmanager
def network(rate: str | None) -> Iterator[Network]:
    """Loopback, or a network namespace for the controller behind a link of `rate` (tc's notation, such as 1gbit) in
    both directions. Raises BenchError where that is not allowed."""
    if rate is None:
        yield Network("127.0.0.1", ())
        return
    name = f"metisfl{os.getpid() % 100_000}"
    inside, outside = f"{name}i", f"{name}o"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("addr", "add", "10.203.0.1/30", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", name, "addr", "add", "10.203.0.2/30", "dev", inside)
        _ip("-n", name, "link", "set", inside, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        shape = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
        _run("tc", "qdisc", "add", "dev", outside, *shape)
        _run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", inside, *shape)
        yield Network("10.203.0.2", ("ip", "netns", "exec", name))
    finally:
        # Takes both ends of the pair with it.
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", outside], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", "") or str(error)
        raise BenchError(f"no shaped link can be made here ({words.strip()}): it takes root, ip and tc") from error

"""Processes that end with the benchmark that started them. Standard library only: it runs in every environment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.compare.output import tell

STOP_SECONDS = 10.0
POLL_SECONDS = 0.2
MARK = "METISFL_COMPARE_RUN"
"""An environment variable by which processes are recognised that a child has started, and theirs in turn."""


class CompareError(RuntimeError):
    """Something could not be measured; the message says why."""


class Children:
    """Child processes, with a log file for each. Needs Linux's /proc."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        mark = f"{MARK}={uuid.uuid4().hex}"
        self._mark = mark.encode()
        self._environment = {**os.environ, **environment, MARK: mark.partition("=")[2]}
        self._started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        log = self._logs / f"{len(self._started)}.log"
        with log.open("wb") as output:
            # A session of its own: what a terminal or `timeout` sends to the group of all does not reach it.
            child = subprocess.Popen(
                command, env=self._environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._started.append((child, log))
        return child

    def check(self) -> None:
        """Raises CompareError when one has failed."""
        for child, log in self._started:
            if child.poll():
                # Not in the message: that one is kept in results, which hold no paths of a machine.
                tell(log.read_text(errors="replace")[-3000:])
                raise CompareError(f"{_name(child)} ended with status {child.returncode}")

    def until(self, done: Callable[[], bool], deadline: float) -> bool:
        """Wait until `done`; False when `deadline` (monotonic) comes first. Raises CompareError when a child fails."""
        while not done():
            self.check()
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def require(self, done: Callable[[], bool], deadline: float, what: str) -> None:
        """Like `until`, but the deadline is a CompareError too."""
        if not self.until(done, deadline):
            raise CompareError(f"gave up waiting for {what}")

    def stop(self) -> None:
        """End them and all that they started, whatever session that has moved to."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while self._alive() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)

    def _alive(self) -> list[int]:
        """Processes that have inherited the mark; those that have ended, waited for or not, have no environment."""
        for child, _ in self._started:
            child.poll()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if self._mark in _read(path)]


@contextlib.contextmanager
def children(logs: Path, environment: Mapping[str, str] | None = None) -> Iterator[Children]:
    started = Children(logs, environment or {})
    try:
        yield started
    finally:
        started.stop()


def exit_on_sigterm() -> None:
    """Let SIGTERM unwind this process, so that it stops its children. Only the first one: a second, such as `timeout`
    sends to the whole group, must not interrupt the unwinding."""

    def leave(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def stop(process: subprocess.Popen[str]) -> None:
    """End a process that stops its own children on SIGTERM; by force when that takes too long."""
    process.terminate()
    try:
        process.wait(3 * STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def answers(port: int) -> bool:
    """Whether something listens on this port of loopback."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing uses at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _name(child: subprocess.Popen[bytes]) -> str:
    assert isinstance(child.args, Sequence)
    return Path(str(child.args[0])).name


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""

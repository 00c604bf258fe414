"""The operating system's side of a run: one process group, its members, their logs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TAIL_BYTES = 64 * 1024
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Launch:
    """How to start one process of the run."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]


class RunningProcess:
    """A process started from a Launch; standard output and error go to its log."""

    def __init__(self, launch: Launch, log: Path, group: int) -> None:
        self.name = launch.name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                launch.argv,
                env=dict(launch.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=group,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    def terminate(self) -> None:
        self._popen.terminate()

    def kill(self) -> None:
        self._popen.kill()


class ProcessGroup:
    """Context manager: every process started through it is gone when it ends, or when this process is killed."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[RunningProcess] = []
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._watchdog = subprocess.Popen(
            [sys.executable, "-P", "-m", "metisfl.local.watchdog"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # A group of its own: Ctrl-C in a terminal reaches only the runner, which then ends the run in order.
            process_group=0,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watchdog is None or self._watchdog.stdin is None:
            return
        self._watchdog.stdin.close()
        self._watchdog.wait()
        for process in self._started:
            process.exit_code()

    def start(self, launch: Launch) -> RunningProcess:
        """Start a process; its output is appended to `<name>.log`. Raises OSError when it cannot be started."""
        if self._watchdog is None:
            raise RuntimeError("processes are started inside the group's context")
        process = RunningProcess(launch, self._logs / f"{launch.name}.log", self._watchdog.pid)
        self._started.append(process)
        return process

    def stop(self, grace_seconds: float, impatient: Callable[[], bool]) -> None:
        """SIGTERM to all that run, and SIGKILL to those still there after the grace or once `impatient`."""
        running = self._running()
        for process in running:
            process.terminate()
        deadline = time.monotonic() + grace_seconds
        while running := self._running():
            if time.monotonic() >= deadline or impatient():
                for process in running:
                    process.kill()
            time.sleep(_POLL_SECONDS)

    def _running(self) -> list[RunningProcess]:
        return [process for process in self._started if process.exit_code() is None]


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log, without trailing blank lines."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.rstrip().splitlines()[-count:]

"""Start, recognise and stop the processes of the cluster."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from _cluster.errors import ClusterError
from _cluster.home import Home
from _cluster.shell import environment, say, tail

_START_SECONDS = 2.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Command:
    """A process of the cluster: its name and the full command line."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Processes:
    """The processes that pid files in the state folder tell of."""

    home: Home

    def start(self, command: Command) -> None:
        """Start a process in a session of its own, unless it runs already."""
        if self.running(command.name):
            return
        self.home.run.mkdir(parents=True, exist_ok=True)
        self.home.log.mkdir(parents=True, exist_ok=True)
        with self.log(command.name).open("ab") as log:
            process = subprocess.Popen(
                command.argv,
                cwd=self.home.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid_file(command.name).write_text(json.dumps({"pid": process.pid, "argv": command.argv}))
        # The kernel shows the new command line a moment after it has started the program.
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and not self.running(command.name) and time.monotonic() < deadline:
            time.sleep(0.01)

    def pid(self, name: str) -> int | None:
        """The id of a running process.

        A pid file alone proves nothing: processes end while nobody looks and their ids are given to others. So the
        command line has to be the recorded one.
        """
        try:
            record = json.loads(self._pid_file(name).read_text())
            pid = int(record["pid"])
            return pid if command_line(pid) == record["argv"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def running(self, name: str) -> bool:
        return self.pid(name) is not None

    def known(self) -> list[str]:
        """The names of all processes that were started and not stopped."""
        return sorted(path.stem for path in self.home.run.glob("*.pid"))

    def must_run(self, name: str) -> None:
        """Raise when a process that was started has ended, with the end of its log."""
        if not self.running(name):
            log = self.log(name)
            last = tail(log.read_text(errors="replace")) if log.exists() else ""
            raise ClusterError(f"{name} has ended; the end of {log}:\n{last}")

    def signal(self, name: str, number: signal.Signals) -> None:
        pid = self.pid(name)
        if pid is not None:
            _send(pid, number)

    def stop(self, names: Iterable[str]) -> None:
        """Ask all of them to end, at once, and insist after some seconds."""
        pids = {name: pid for name in names if (pid := self.pid(name)) is not None}
        for pid in pids.values():
            _send(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(self.running(name) for name in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        for name, pid in pids.items():
            if self.running(name):
                say(f"{name} did not end within {_STOP_SECONDS:.0f} s and is killed")
                _send(pid, signal.SIGKILL)
        for name in names:
            self._pid_file(name).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        return self.home.log / f"{name}.log"

    def _pid_file(self, name: str) -> Path:
        return self.home.run / f"{name}.pid"


def command_line(pid: int) -> list[str]:
    """The arguments of a running process; empty for a zombie. Raises OSError when there is none."""
    raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    return raw.decode(errors="surrogateescape").split("\0")[:-1]


def kill_matching(program: str, argument: str) -> None:
    """Kill the processes of one program that carry exactly this argument."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = command_line(int(folder.name))
        except OSError:
            continue
        if arguments and Path(arguments[0]).name == program and argument in arguments[1:]:
            _send(int(folder.name), signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself in the meantime
        os.kill(pid, number)

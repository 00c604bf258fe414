"""Run commands with a deadline and a readable failure; tell the person waiting what is going on."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from _cluster.errors import ClusterError

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_SHOWN_LINES = 15
_STARTED = time.monotonic()

Argument = str | Path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with the folders of system tools on the path (a plain `su` leaves them out)."""
    path = os.environ.get("PATH", "/usr/bin:/bin").split(os.pathsep)
    path += [folder for folder in _SYSTEM_FOLDERS if folder not in path]
    return {**os.environ, "PATH": os.pathsep.join(path), **(extra or {})}


def run(
    *argv: Argument,
    timeout: float = 60,
    check: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """Run a command and return its standard output.

    A command that fails (unless `check` is off) or outlasts `timeout` seconds raises ClusterError with its last lines.
    """
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment(env), input=stdin, capture_output=True, text=True, timeout=timeout
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]}: no such command ({error})") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{_brief(command)}` was stopped: it ran longer than {timeout:.0f} s") from error
    if check and done.returncode:
        raise ClusterError(f"`{_brief(command)}` failed with {done.returncode}:\n{tail(done.stdout + done.stderr)}")
    return done.stdout


def run_visibly(*argv: Argument, timeout: float, env: Mapping[str, str] | None = None) -> None:
    """Like `run`, for commands whose own progress is worth seeing: their output goes to standard error."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command, env=environment(env), stdout=sys.stderr, stdin=subprocess.DEVNULL, timeout=timeout
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]}: no such command ({error})") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{_brief(command)}` was stopped: it ran longer than {timeout:.0f} s") from error
    if done.returncode:
        raise ClusterError(f"`{_brief(command)}` failed with {done.returncode}; its output is above")


def tail(text: str, lines: int = _SHOWN_LINES) -> str:
    """The last lines of a log, indented."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-lines:])


def say(message: str) -> None:
    """One line of progress on standard error, with the seconds since the command started."""
    print(f"[{time.monotonic() - _STARTED:4.0f} s] {message}", file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say that a long step begins, and how long it took."""
    say(f"{what} …")
    began = time.monotonic()
    yield
    say(f"{what}: done in {time.monotonic() - began:.0f} s")


def wait_until(
    condition: Callable[[], bool],
    what: str,
    seconds: float,
    still_possible: Callable[[], None] = lambda: None,
    interval: float = 0.2,
) -> None:
    """Wait for a condition. `still_possible` is asked each time and raises when waiting on makes no sense."""
    deadline = time.monotonic() + seconds
    while not condition():
        still_possible()
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:.0f} s")
        time.sleep(interval)


def _brief(command: Sequence[str]) -> str:
    text = " ".join(command)
    return text if len(text) <= 100 else text[:97] + "..."

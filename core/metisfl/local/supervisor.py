"""Keeps the processes of a run alive: starts them, notices when one ends, starts it again or gives up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from metisfl.local.processes import Launch, ProcessGroup, RunningProcess, last_lines
from metisfl.local.restarts import MAX_RESTARTS, Fatal, Spare, Verdict

_SHOWN_LOG_LINES = 20

Judge = Callable[[int, int], Verdict]


class ProcessFailedError(Exception):
    """A process ended for good; `lines` are the last ones of its log."""

    def __init__(self, name: str, why: str, log: Path, lines: list[str]) -> None:
        super().__init__(f"{name} ended: {why}")
        self.name = name
        self.log = log
        self.lines = lines


@dataclass
class Member:
    """One process the supervisor answers for."""

    launch: Launch
    judge: Judge
    process: RunningProcess
    restarts: int = 0
    restart_at: float | None = None
    released: bool = False

    @property
    def name(self) -> str:
        return self.launch.name


class Supervisor:
    """Owns the members; `note` is told, in one line each, what a user should know."""

    def __init__(self, group: ProcessGroup, note: Callable[[str], None]) -> None:
        self._group = group
        self._note = note
        self._members: dict[str, Member] = {}

    def start(self, launch: Launch, judge: Judge) -> None:
        """Start a process and answer for it from now on."""
        self._members[launch.name] = Member(launch, judge, self._group.start(launch))

    def replace(self, launch: Launch) -> None:
        """From the next restart on, start the member of this name like this."""
        self._members[launch.name].launch = launch

    def restarts(self) -> dict[str, int]:
        """How often each process was started again."""
        return {name: member.restarts for name, member in self._members.items()}

    def log_end(self, name: str) -> list[str]:
        """The last lines a process wrote."""
        return last_lines(self._members[name].process.log, _SHOWN_LOG_LINES)

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self._members[name].process.log

    def ended(self) -> list[str]:
        """Processes that have ended and have not been judged yet."""
        return [
            member.name
            for member in self._members.values()
            if not member.released and member.restart_at is None and member.process.exit_code() is not None
        ]

    def judge(self, names: Iterable[str]) -> None:
        """Decide on processes that have ended. Raises ProcessFailedError for one that may not be started again."""
        now = time.monotonic()
        for name in names:
            member = self._members[name]
            exit_code = member.process.exit_code()
            if exit_code is not None:
                self._judge(member, exit_code, now)

    def restart_due(self) -> None:
        """Start again what has waited long enough."""
        now = time.monotonic()
        for member in self._members.values():
            if member.restart_at is not None and now >= member.restart_at:
                self._restart(member)

    def release(self, names: Iterable[str]) -> None:
        """Their work is done: an end is expected now and no restart follows."""
        for name in names:
            self._members[name].released = True
            self._members[name].restart_at = None

    def exit_codes(self, names: Iterable[str]) -> dict[str, int | None]:
        """None for those that still run."""
        return {name: self._members[name].process.exit_code() for name in names}

    def _judge(self, member: Member, exit_code: int, now: float) -> None:
        verdict = member.judge(exit_code, member.restarts)
        if isinstance(verdict, Fatal):
            member.released = True
            raise ProcessFailedError(member.name, verdict.why, member.process.log, self.log_end(member.name))
        if isinstance(verdict, Spare):
            member.released = True
            self._note(f"{member.name} ended: {verdict.why}; the run goes on without it, see {member.process.log}")
            return
        member.restart_at = now + verdict.delay_seconds
        attempt = f"restart {member.restarts + 1} of at most {MAX_RESTARTS}"
        self._note(f"{member.name} ended: {verdict.why}; {attempt} in {verdict.delay_seconds:g} s")

    def _restart(self, member: Member) -> None:
        member.restart_at = None
        member.restarts += 1
        member.process = self._group.start(member.launch)
        self._note(f"{member.name} started again as process {member.process.pid}")

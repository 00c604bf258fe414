"""The trail: who came, who got a certificate, who was turned away. A log line at once, a row soon after."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from metisfl.logs import ContextLogger
from metisfl_controller.clock import Clock
from metisfl_controller.state.records import StateError

MAX_WORDS = 500
MAX_WAITING = 5_000
"""Entries between two writes; of a flood, the oldest go, and their log lines stay."""

WRITE_SECONDS = 1.0


class Action(StrEnum):
    ENROLLED = "Enrolled"
    RENEWED = "Renewed"
    ENROLMENT_REFUSED = "EnrolmentRefused"
    JOINED = "Joined"
    JOIN_REFUSED = "JoinRefused"
    CALL_REFUSED = "CallRefused"
    REVOKED = "Revoked"

    @property
    def refusal(self) -> bool:
        return self.value.endswith("Refused")


@dataclass(frozen=True)
class AuditEntry:
    """`at`: seconds since the epoch. `peer`: the address that the connection came from."""

    at: float
    action: str
    learner: str
    peer: str
    detail: str


class Audit:
    """`write` puts entries into the store, or raises StateError; it blocks and is called in a thread."""

    def __init__(self, write: Callable[[list[AuditEntry]], None], clock: Clock, log: ContextLogger) -> None:
        self._write = write
        self._clock = clock
        self._log = log.bind(event="audit")
        self._waiting: deque[AuditEntry] = deque(maxlen=MAX_WAITING)

    def record(self, action: Action, learner: str, peer: str, detail: str = "") -> None:
        entry = AuditEntry(self._clock(), action, _line(learner[:80]), peer[:200], _line(detail[:MAX_WORDS]))
        self._waiting.append(entry)
        tell = self._log.warning if action.refusal else self._log.info
        tell(
            "audit: %s %s",
            action,
            entry.learner,
            extra={"action": str(action), "learner": entry.learner, "peer": entry.peer, "detail": entry.detail},
        )

    async def run(self) -> None:
        """Write down what comes, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write down what waits. When the disk fails it goes on waiting, and the log, which has it too, says so."""
        entries = list(self._waiting)
        self._waiting.clear()
        if not entries:
            return
        try:
            await asyncio.to_thread(self._write, entries)
        except StateError as error:
            self._log.error("the audit trail cannot be written: %s", error)
            newer = list(self._waiting)
            self._waiting.clear()
            self._waiting.extend([*entries, *newer])


def _line(text: str) -> str:
    """Callers choose some of the words, and are not to write lines of their own into a log."""
    return "".join(character if character.isprintable() else "?" for character in text)

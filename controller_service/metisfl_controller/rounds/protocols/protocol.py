"""What the state machine asks of a protocol. Decisions only: it looks at the open round and changes nothing."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from metisfl_controller.rounds.participation import OpenRound


@dataclass(frozen=True)
class Close:
    """Commit what has been delivered."""


@dataclass(frozen=True)
class AskAgain:
    """Give the round another attempt, up to a new deadline, and these ready learners a part in it."""

    learners: Set[str]
    deadline_at: float


@dataclass(frozen=True)
class GiveUp:
    """The federation has failed."""

    reason: str
    message: str


Step = Close | AskAgain | GiveUp


class RoundProtocol(Protocol):
    """`ready` are the learners that could work now; times are on the clock of the machine's `now`."""

    def open(self, version: int, now: float) -> OpenRound:
        """The round that begins with this version, nobody in it yet."""

    def admits(self, open_round: OpenRound, learner: str) -> bool:
        """Whether a learner that appears in mid-round gets a part in it at once."""

    def next_step(self, open_round: OpenRound, ready: Set[str], now: float) -> Step | None:
        """What the round calls for; None while there is something to wait for."""

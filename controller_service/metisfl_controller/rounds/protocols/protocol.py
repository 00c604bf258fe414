"""What training in rounds asks of a protocol: it looks at the open round and changes nothing of it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from metisfl_controller.rounds.participation import OpenRound
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.training import Step
from metisfl_controller.rounds.work import Work


@dataclass(frozen=True)
class AskAgain:
    """Give the round another attempt, up to a new deadline, and these ready learners a part in it."""

    learners: Set[str]
    deadline_at: float
    candidates: Set[str] = frozenset()
    """Ready learners of whom as many get a part as the selection takes."""


class RoundProtocol(Protocol):
    """`ready` are the learners that could work now; times are on the clock of the machine's `now`. The `plan` may be
    replaced between rounds."""

    plan: Plan

    def open(self, version: int, ready: Set[str], now: float) -> OpenRound:
        """The round that begins with this version, nobody in it yet."""

    def admits(self, open_round: OpenRound, learner: str) -> bool:
        """Whether a learner that appears in mid-round gets a part in it at once."""

    def steps(self, learner: str) -> int | None:
        """Batches for this learner to train on in the open round; None means what `spec.training` says."""

    def delivered(self, learner: str, work: Work) -> None:
        """What a learner did for an update that counts."""

    def next_step(self, open_round: OpenRound, ready: Set[str], now: float) -> Step | AskAgain | None:
        """What the round calls for; None while there is something to wait for."""

"""Everybody in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from metisfl_controller.rounds.selection.policy import Candidate


def longest_waiting(ready: Sequence[Candidate]) -> list[Candidate]:
    """Those whose last part in a round is longest ago come first, who never had one before all; of several that had it
    in the same round, those who had fewer; else as given."""
    return sorted(ready, key=lambda candidate: (candidate.last_round, candidate.rounds))


@dataclass(frozen=True)
class RoundRobin:
    """Takes those who have waited longest, `learners` a round. While the same n are ready, each has its turn in any
    ⌈n / learners⌉ rounds in a row; who was away is first when it returns."""

    learners: int

    metric: ClassVar[str | None] = None

    def select(self, ready: Sequence[Candidate], round: int, extra: int = 0) -> list[str]:
        return [candidate.learner for candidate in longest_waiting(ready)[: self.learners + extra]]

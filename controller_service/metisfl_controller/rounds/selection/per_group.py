"""As many of each learner group, or site, however large it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from metisfl_controller.rounds.selection.policy import Candidate
from metisfl_controller.rounds.selection.round_robin import longest_waiting


@dataclass(frozen=True)
class PerGroup:
    """Takes `learners` of each group, in turn as RoundRobin does; a smaller group gives all it has. Extra learners are
    those who have waited longest among the others, of whatever group."""

    learners: int

    metric: ClassVar[str | None] = None

    def select(self, ready: Sequence[Candidate], round: int, extra: int = 0) -> list[str]:
        taken: dict[str, list[str]] = {}
        others: list[str] = []
        for candidate in longest_waiting(ready):
            members = taken.setdefault(candidate.group, [])
            (members if len(members) < self.learners else others).append(candidate.learner)
        return [learner for members in taken.values() for learner in members] + others[:extra]

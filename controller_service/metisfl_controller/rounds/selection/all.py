"""Every learner that is ready takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from metisfl_controller.rounds.selection.policy import Candidate


@dataclass(frozen=True)
class All:
    """The default."""

    metric: ClassVar[str | None] = None

    def select(self, ready: Sequence[Candidate], round: int, extra: int = 0) -> list[str]:
        return [candidate.learner for candidate in ready]

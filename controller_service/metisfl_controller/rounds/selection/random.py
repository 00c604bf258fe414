"""A share of the learners that are ready, every set of that size as likely as any other (FedAvg's fraction C,
arXiv 1602.05629)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from metisfl_controller.rounds.selection.chance import uniform
from metisfl_controller.rounds.selection.policy import Candidate


@dataclass(frozen=True)
class Random:
    """Takes ⌈fraction · n⌉ of n, at least one: those with the smallest of numbers drawn for this round."""

    fraction: Fraction
    """Above 0, at most 1; exact, as 0.1 of 10 is one learner and not two."""

    seed: int

    metric: ClassVar[str | None] = None

    def select(self, ready: Sequence[Candidate], round: int, extra: int = 0) -> list[str]:
        drawn = sorted((candidate.learner for candidate in ready), key=lambda name: uniform(self.seed, round, name))
        return drawn[: math.ceil(self.fraction * len(drawn)) + extra]

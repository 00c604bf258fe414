"""Power-of-choice (Cho, Wang and Joshi 2020, arXiv 2010.01243): prefer learners for which the model is still bad.

1. Draw `candidates` learners without replacement, learner k with probability n_k / Σ n, its share of the data. One draw
   of a uniform number u_k for each does it: those with the largest u_k^(1/n_k) (Efraimidis and Spirakis 2006).
2. Of those take the `learners` with the highest last known value of `metric`.

The more candidates, the faster and the more biased towards bad fits; with as many candidates as learners nothing but
the draw remains. Values are those of the last report, however old, which is the paper's π_rpow-d: no learner does
anything for a round in which it is not selected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from metisfl_controller.rounds.selection.chance import uniform
from metisfl_controller.rounds.selection.policy import Candidate


@dataclass(frozen=True)
class PowerOfChoice:
    """`candidates` is d and `learners` m of the paper; a learner without a known loss comes before all others."""

    candidates: int
    learners: int
    metric: str
    seed: int

    def select(self, ready: Sequence[Candidate], round: int, extra: int = 0) -> list[str]:
        wanted = self.learners + extra
        drawn = sorted(ready, key=lambda candidate: self._lot(candidate, round))[: max(self.candidates, wanted)]
        worst_first = sorted(drawn, key=lambda candidate: -candidate.metrics.get(self.metric, math.inf))
        return [candidate.learner for candidate in worst_first[:wanted]]

    def _lot(self, candidate: Candidate, round: int) -> float:
        """-log(u) / n: smallest where u^(1/n) is largest, and no data of whatever size makes it round to 1."""
        return -math.log(uniform(self.seed, round, candidate.learner)) / max(candidate.examples, 1)

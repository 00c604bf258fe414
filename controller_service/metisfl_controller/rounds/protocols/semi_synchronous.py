"""The SemiSynchronous protocol: rounds in which everybody trains for about as long as the slowest.

    t_max = λ · max_k (time of one epoch of learner k)        batches_k = max(1, ⌊t_max / time per batch of learner k⌋)

(Stripelis, Thompson and Ambite 2022, arXiv 2102.02849). t_max and every learner's batches are computed anew, from the
latest timings, every `recomputeEveryRounds` rounds; t_max is never more than the round's deadline, whatever a learner
says of its speed. A learner without timings trains for one epoch, which gives them: in the first round everybody does,
and after a restart of the controller again.
"""

from __future__ import annotations

import math
from collections.abc import Set

from metisfl_controller.rounds.participation import OpenRound
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.protocols.parameters import Pacing
from metisfl_controller.rounds.protocols.synchronous import Synchronous
from metisfl_controller.rounds.work import Work

_MAX_STEPS = 1_000_000_000
"""The bound of `spec.training.steps`."""

_CLOCK_SECONDS = 1e-6
"""A batch takes no less, whatever a learner says."""


class SemiSynchronous(Synchronous):
    """Differs from Synchronous in how much each learner trains."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._batch_seconds: dict[str, float] = {}
        """Of each learner's last training."""
        self._epoch_batches: dict[str, int] = {}
        self._limit: float | None = None
        """t_max, in seconds."""
        self._steps: dict[str, int] = {}
        self._computed_in = 0
        """The round in which they were computed."""

    def open(self, version: int, ready: Set[str], now: float) -> OpenRound:
        opened = super().open(version, ready, now)
        timed = ready & self._batch_seconds.keys()
        due = opened.number - self._computed_in >= self._pacing.recompute_every
        if timed and (self._limit is None or due):
            slowest = max(map(self._epoch_seconds, timed))
            self._limit = min(self._pacing.lambda_ * slowest, self.plan.round_deadline)
            self._steps, self._computed_in = {}, opened.number
        if self._limit is not None:
            for learner in timed - self._steps.keys():
                self._steps[learner] = self._steps_within(self._limit, learner)
        return opened

    def steps(self, learner: str) -> int | None:
        return self._steps.get(learner)

    def delivered(self, learner: str, work: Work) -> None:
        self._batch_seconds[learner] = max(work.seconds / max(1, work.batches), _CLOCK_SECONDS)
        self._epoch_batches[learner] = math.ceil(work.examples / self._pacing.batch_size)

    @property
    def _pacing(self) -> Pacing:
        assert self.plan.pacing is not None
        return self.plan.pacing

    def _epoch_seconds(self, learner: str) -> float:
        return self._batch_seconds[learner] * self._epoch_batches[learner]

    def _steps_within(self, seconds: float, learner: str) -> int:
        # A hair more, so that the slowest learner's own epoch is not rounded down to one batch less.
        return max(1, min(_MAX_STEPS, math.floor(seconds / self._batch_seconds[learner] * (1 + 1e-9))))

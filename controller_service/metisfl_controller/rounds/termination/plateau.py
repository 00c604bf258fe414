"""A metric that does not get better any more.

best ← v_t when v_t is better than best by more than minDelta; the plateau is reached when that has not happened
for `rounds` evaluated versions in a row (early stopping, Prechelt 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.spec.termination import Goal, MetricSource
from metisfl_controller.rounds.termination.conclusion import Conclusion, metric_name


@dataclass(frozen=True)
class Plateau:
    """`rounds` counts evaluated versions."""

    metric: str
    rounds: int
    goal: Goal
    min_delta: float = 0.0
    source: MetricSource = MetricSource.LEARNERS


class PlateauWatch:
    """Knows the best value so far and how long ago it was."""

    def __init__(self, plateau: Plateau) -> None:
        self.metric, self.source = plateau.metric, plateau.source
        self._plateau = plateau
        self._best: tuple[int, float] | None = None
        self._since = 0

    def observe(self, version: int, value: float) -> Conclusion | None:
        """The metric's value for an evaluated version, newer than those before."""
        if self._best is None or self._gain(value, self._best[1]) > self._plateau.min_delta:
            self._best, self._since = (version, value), 0
            return None
        self._since += 1
        if self._since < self._plateau.rounds:
            return None
        best_version, best = self._best
        by = f" by more than {self._plateau.min_delta:g}" if self._plateau.min_delta else ""
        return Conclusion(
            "Plateau",
            f"{metric_name(self.metric, self.source)} has not improved{by} in {self._since} evaluated versions: "
            f"{best:.6g} at version {best_version}, {value:.6g} at version {version}",
        )

    def _gain(self, value: float, best: float) -> float:
        return value - best if self._plateau.goal is Goal.MAXIMISE else best - value

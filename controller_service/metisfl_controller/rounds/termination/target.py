"""A metric that is good enough."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.spec.termination import MetricSource
from metisfl_controller.rounds.termination.conclusion import Conclusion, metric_name


@dataclass(frozen=True)
class Target:
    """A bound on one metric, which must hold for `patience` evaluated versions in a row. Exactly one bound is set."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    patience: int = 1
    source: MetricSource = MetricSource.LEARNERS

    def met_by(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    def __str__(self) -> str:
        name = metric_name(self.metric, self.source)
        return f"{name} ≥ {self.at_least}" if self.at_least is not None else f"{name} ≤ {self.at_most}"


class TargetMetric:
    """Counts the versions in a row that have met a target."""

    def __init__(self, target: Target) -> None:
        self.metric, self.source = target.metric, target.source
        self._target = target
        self._in_a_row = 0

    def observe(self, version: int, value: float) -> Conclusion | None:
        """The metric's value for an evaluated version, newer than those before."""
        self._in_a_row = self._in_a_row + 1 if self._target.met_by(value) else 0
        if self._in_a_row < self._target.patience:
            return None
        row = f", in {self._target.patience} evaluated versions in a row" if self._target.patience > 1 else ""
        return Conclusion("TargetMetricReached", f"version {version} reached {self._target}: {value:.6g}{row}")

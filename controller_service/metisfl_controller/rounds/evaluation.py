"""Federated evaluation: the metrics of one model version over all learners' held-out examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from metisfl_controller.rounds.tasks import TaskId


@dataclass(frozen=True)
class Report:
    """One learner's metrics of one version, over `examples` held-out examples."""

    examples: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Mean:
    """An example-weighted mean, and the examples behind it."""

    value: float
    examples: int


def weighted_means(reports: Iterable[Report]) -> dict[str, Mean]:
    """For each metric, Σ examples · value / Σ examples over the learners that report it; learners without held-out
    examples have no say."""
    means: dict[str, Mean] = {}
    for report in reports:
        if report.examples <= 0:
            continue
        for name, value in report.metrics.items():
            mean = means.get(name, Mean(0.0, 0))
            examples = mean.examples + report.examples
            share = report.examples / examples
            # Exact where all values are equal, as a target may be just that; and the largest floats do not overflow.
            means[name] = Mean(mean.value + (value * share - mean.value * share), examples)
    return means


@dataclass
class Evaluation:
    """Collects the reports of one version from the learners asked; settled once and for all."""

    version: int
    reports: dict[str, Report] = field(default_factory=dict)
    settled: bool = False

    def awaits(self, version: int) -> bool:
        """Whether reports of this version still count."""
        return self.version == version and not self.settled

    def lacks(self, task: TaskId) -> bool:
        """Whether the task's learner evaluates the version, as its task begins with it, and has not reported."""
        return task.base_version == self.version and task.learner not in self.reports

    def means(self) -> dict[str, Mean]:
        return weighted_means(self.reports.values())

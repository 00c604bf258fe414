"""Federated evaluation: the metrics of one model version over all learners' held-out examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


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
    totals: dict[str, tuple[float, int]] = {}
    for report in reports:
        if report.examples <= 0:
            continue
        for name, value in report.metrics.items():
            total, examples = totals.get(name, (0.0, 0))
            totals[name] = (total + report.examples * value, examples + report.examples)
    return {name: Mean(total / examples, examples) for name, (total, examples) in totals.items()}


@dataclass
class Evaluation:
    """Collects the reports of one version from the learners asked; settled once and for all."""

    version: int
    reports: dict[str, Report] = field(default_factory=dict)
    settled: bool = False

    def means(self) -> dict[str, Mean]:
        return weighted_means(self.reports.values())

"""Metrics over rounds, as little pictures: pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from metisfl.api import FederationDocument, RoundDocument
from metisfl.local.progress.words import evaluators_name, training_name

_BARS = "▁▂▃▄▅▆▇█"


def trends(document: FederationDocument, rounds: Sequence[RoundDocument]) -> dict[str, list[float]]:
    """Every metric's values, oldest first: means of the learners' training reports, then of the evaluated versions,
    then by evaluators."""
    found: dict[str, list[float]] = {}
    for entry in rounds:
        for name, value in entry.train_metrics.items():
            found.setdefault(training_name(name), []).append(value)
    for entry in rounds:
        for metric in entry.metrics:
            found.setdefault(metric.name, []).append(metric.value)
    for metric in document.metrics:
        found.setdefault(metric.name, [metric.value])
    for entry in rounds:
        for metric in entry.evaluator_metrics:
            found.setdefault(evaluators_name(metric.name), []).append(metric.value)
    for metric in document.evaluator_metrics:
        found.setdefault(evaluators_name(metric.name), [metric.value])
    return found


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars of eight heights; values that are not finite leave a gap."""
    shown = list(values[-width:])
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return " " * len(shown)
    # Halves, because the distance between the largest floats is beyond them.
    low = min(finite) / 2
    span = max(finite) / 2 - low
    return "".join(_bar((value / 2 - low) / span if span else 0.5) if math.isfinite(value) else " " for value in shown)


def _bar(share: float) -> str:
    return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)]

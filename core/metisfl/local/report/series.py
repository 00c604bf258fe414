"""The numbers behind the report's curves and bars: pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from metisfl.api import MetricValue, ModelDocument, RoundDocument
from metisfl.local.record import RunRecord

MAX_BARS = 120


@dataclass(frozen=True)
class Points:
    """One curve; x holds round numbers, which are also the numbers of the versions those rounds made."""

    x: tuple[int, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """Everything known about one metric."""

    name: str
    training: Points | None = None
    held_out: Points | None = None
    evaluators: Points | None = None


@dataclass(frozen=True)
class Bars:
    """Seconds of each phase; a bar stands for `rounds_each` rounds, of which it is the mean."""

    first_rounds: tuple[int, ...]
    rounds_each: int
    phases: dict[str, tuple[float, ...]] = field(default_factory=dict)


def curves(record: RunRecord) -> list[Curves]:
    """One entry for each metric that has finite values: accuracy and its like first, losses last."""
    training: dict[str, dict[int, float]] = {}
    for entry in record.rounds:
        for name, value in entry.train_metrics.items():
            training.setdefault(name.removeprefix("train_"), {})[entry.number] = value
    documents: list[RoundDocument | ModelDocument] = [*record.rounds, *record.models]
    held_out = _by_version([*(entry.metrics for entry in documents), record.document.metrics])
    evaluators = _by_version([*(entry.evaluator_metrics for entry in documents), record.document.evaluator_metrics])
    evaluated = {*held_out, *evaluators}
    names = sorted({*training, *evaluated}, key=lambda name: (name not in evaluated, "loss" in name, name))
    each = (training, held_out, evaluators)
    found = [Curves(name, *(_points(values.get(name, {})) for values in each)) for name in names]
    return [entry for entry in found if entry.training or entry.held_out or entry.evaluators]


def phase_bars(rounds: Sequence[RoundDocument]) -> Bars:
    """Phases of each round, in the order the rounds report them, and what of its time no phase accounts for."""
    each = max(1, math.ceil(len(rounds) / MAX_BARS))
    groups = [rounds[start : start + each] for start in range(0, len(rounds), each)]
    names = list(dict.fromkeys(name for entry in rounds for name in entry.phase_seconds))
    phases = {
        name: tuple(_mean([entry.phase_seconds.get(name, 0.0) for entry in group]) for group in groups)
        for name in names
    }
    other = tuple(_mean([_unaccounted(entry) for entry in group]) for group in groups)
    if any(seconds > 0.01 for seconds in other):
        phases["other"] = other
    return Bars(tuple(group[0].number for group in groups), each, phases)


def _by_version(lists: Iterable[Iterable[MetricValue]]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for metric in chain.from_iterable(lists):
        found.setdefault(metric.name, {})[metric.version] = metric.value
    return found


def _points(values: dict[int, float]) -> Points | None:
    finite = sorted((x, y) for x, y in values.items() if math.isfinite(y))
    return Points(tuple(x for x, _ in finite), tuple(y for _, y in finite)) if finite else None


def _unaccounted(entry: RoundDocument) -> float:
    total = (entry.ended_at - entry.started_at).total_seconds()
    return max(0.0, total - sum(entry.phase_seconds.values()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

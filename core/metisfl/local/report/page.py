"""What the page says, in words and rows: pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from statistics import median

import yaml

from metisfl.api import FederationState, RoundDocument
from metisfl.local.progress.words import duration, evaluators_name, goal, number, shape, size
from metisfl.local.record import RunRecord
from metisfl.local.report.series import Bars, Curves
from metisfl.spec import Federation, parse_federation
from metisfl.spec.protocol import ProtocolType

MAX_ROUND_ROWS = 500


@dataclass(frozen=True)
class Figure:
    """One large number of the page's head."""

    label: str
    value: str


@dataclass(frozen=True)
class Table:
    """Rows of text; columns named in `numeric` stand to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()


def federation_of(record: RunRecord) -> Federation:
    """The Federation that was run."""
    return parse_federation(yaml.safe_load(record.federation_yaml))


def verdict(record: RunRecord) -> tuple[str, str]:
    """A word (complete, failed, unfinished) and the sentence that explains it."""
    document = record.document
    word = {FederationState.COMPLETE: "complete", FederationState.FAILED: "failed"}.get(document.state, "unfinished")
    return word, record.ending


def subtitle(federation: Federation) -> str:
    return f"{shape(federation)}; {goal(federation)}"


def figures(record: RunRecord) -> list[Figure]:
    """The run at a glance."""
    document = record.document
    found = [Figure(metric.name, number(metric.value)) for metric in document.metrics[:4]]
    found += [Figure(evaluators_name(metric.name), number(metric.value)) for metric in document.evaluator_metrics[:2]]
    unit = ProtocolType(document.protocol).unit
    found.append(Figure(f"{unit}s", f"{document.committed_rounds} of {document.max_rounds}"))
    found.append(Figure("time", duration(timedelta(seconds=record.seconds))))
    found.append(Figure("traffic", size(document.bytes_sent + document.bytes_received)))
    return found


def target_for(federation: Federation, metric: str) -> float | None:
    """The value this metric was to reach, if it was the target."""
    target = federation.spec.termination.target_metric
    if target is None or target.name != metric:
        return None
    bound = target.at_least if target.at_least is not None else target.at_most
    return float(bound) if bound is not None else None


def learner_table(record: RunRecord) -> Table:
    """One row for each learner the controller knows."""
    rows: list[tuple[str, ...]] = [
        (
            learner.id,
            str(learner.train_examples),
            str(learner.test_examples),
            f"{learner.contributions} of {record.document.committed_rounds}",
            str(record.restarts.get(learner.id, 0)),
            learner.message,
        )
        for learner in sorted(record.document.learners, key=lambda learner: learner.id)
    ]
    columns = ("learner", "training examples", "held-out examples", "rounds", "restarts", "remark")
    width = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    return Table(columns[:width], tuple(row[:width] for row in rows), frozenset(columns[1:5]))


def evaluator_table(record: RunRecord) -> Table:
    """One row for each evaluator the controller knows."""
    columns = ("evaluator", "held-out examples", "versions evaluated", "missed", "restarts", "remark")
    rows = tuple(
        (
            each.id,
            str(each.test_examples),
            str(each.evaluations),
            str(each.missed),
            str(record.restarts.get(each.id, 0)),
            each.message,
        )
        for each in sorted(record.document.evaluators, key=lambda each: each.id)
    )
    return Table(columns, rows, frozenset(columns[1:5]))


def round_table(record: RunRecord) -> Table:
    """The last rounds; all of them are in summary.json and history.sqlite."""
    rounds = record.rounds[-MAX_ROUND_ROWS:]
    names = list(dict.fromkeys(name for entry in rounds for name in _metrics_of(entry)))
    rows = []
    for entry in rounds:
        values = _metrics_of(entry)
        rows.append(
            (
                str(entry.number),
                f"{(entry.ended_at - entry.started_at).total_seconds():.2f} s",
                f"{len(entry.contributors)} of {len(entry.participants)}",
                ", ".join(entry.lost),
                *(values.get(name, "") for name in names),
                size(entry.bytes_received),
                size(entry.bytes_sent),
            )
        )
    columns = ("round", "time", "learners", "lost", *names, "received", "sent")
    return Table(columns, tuple(rows), frozenset({*columns} - {"lost"}))


def _metrics_of(entry: RoundDocument) -> dict[str, str]:
    by_learners = {metric.name: number(metric.value) for metric in entry.metrics}
    return by_learners | {evaluators_name(metric.name): number(metric.value) for metric in entry.evaluator_metrics}


def describe_curves(curves: Curves) -> str:
    """What a curve shows, for those who do not see it."""
    parts = []
    series = (("held-out", curves.held_out), ("training", curves.training), ("evaluators'", curves.evaluators))
    for label, points in series:
        if points:
            first, last = number(points.y[0]), number(points.y[-1])
            parts.append(f"{label} {curves.name} from {first} at round {points.x[0]} to {last} at round {points.x[-1]}")
    return "; ".join(parts)


def describe_bars(bars: Bars) -> str:
    """What the bars show, for those who do not see them."""
    parts = [f"{name} {_seconds(median(seconds))}" for name, seconds in bars.phases.items()]
    return f"in the median round: {', '.join(parts)}"


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"

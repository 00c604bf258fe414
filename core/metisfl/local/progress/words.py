"""Numbers as people read them: pure."""

from __future__ import annotations

from datetime import timedelta

from metisfl.spec import Federation
from metisfl.spec.selection import SelectionType
from metisfl.spec.termination import MetricSource
from metisfl.spec.transport import CodecName, CompressionType, TransportSpec


def duration(span: timedelta) -> str:
    """`0.4 s`, `28 s`, `3 min 20 s`, `2 h 5 min`."""
    exact = max(span.total_seconds(), 0.0)
    if 0.05 <= exact < 9.95:
        return f"{exact:.1f} s"
    seconds = round(exact)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(count: int) -> str:
    """`812 B`, `14.2 KiB`, `3.0 GiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{int(amount)} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def training_name(name: str) -> str:
    """What a mean of the learners' training reports is called beside evaluated metrics."""
    return f"training {name.removeprefix('train_')}"


def evaluators_name(name: str) -> str:
    """What a metric measured by evaluators is called beside the learners' own."""
    return f"evaluators' {name}"


def goal(federation: Federation) -> str:
    """When this federation ends, in words."""
    termination = federation.spec.termination
    parts = [f"at most {plural(termination.max_rounds, federation.spec.protocol.type.unit)}"]
    if termination.max_duration_seconds is not None:
        parts.append(f"at most {duration(timedelta(seconds=termination.max_duration_seconds))}")
    if target := termination.target_metric:
        bound = f"≥ {target.at_least}" if target.at_least is not None else f"≤ {target.at_most}"
        parts.append(f"until {_of(target.source, target.name)} {bound}{_often(target.patience)}")
    if plateau := termination.plateau:
        name, versions = _of(plateau.source, plateau.metric), plural(plateau.rounds, "version")
        parts.append(f"until {name} has not improved for {versions}")
    return ", ".join(parts)


def _of(source: MetricSource, name: str) -> str:
    return evaluators_name(name) if source is MetricSource.EVALUATORS else name


def _often(patience: int) -> str:
    return f" for {patience} versions in a row" if patience > 1 else ""


def shape(federation: Federation) -> str:
    """`4 learners in 2 groups, 1 evaluator, Synchronous, FedAvg`, and what else is not as by default, such as how
    models travel: `Int8 with Zstd`."""
    spec = federation.spec
    learners = plural(spec.total_learners, "learner")
    groups = plural(len(spec.training_groups), "group")
    parts = [f"{learners} in {groups}"]
    if spec.awaited_evaluators:
        parts.append(plural(spec.awaited_evaluators, "evaluator"))
    parts += [spec.protocol.type.value, spec.aggregation.rule.value]
    if spec.selection.type is not SelectionType.ALL:
        parts.append(f"selection {spec.selection.type.value}")
    if spec.transport != TransportSpec():
        parts.append(_transport(spec.transport))
    return ", ".join(parts)


def _transport(transport: TransportSpec) -> str:
    name = transport.codec.value
    if transport.codec is CodecName.TOPK:
        name += f" of {transport.top_k_or_default.fraction}"
    if transport.compression.type is not CompressionType.NONE:
        name += f" with {transport.compression.type.value}"
    return name


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

"""Numbers as people read them: pure."""

from __future__ import annotations

from datetime import timedelta

from metisfl.spec import Federation
from metisfl.spec.transport import CodecName, CompressionType, TransportSpec


def duration(span: timedelta) -> str:
    """`0.4 s`, `28 s`, `3 min 20 s`, `2 h 5 min`."""
    exact = max(span.total_seconds(), 0.0)
    if 0 < exact < 9.95:
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


def goal(federation: Federation) -> str:
    """When this federation ends, in words."""
    termination = federation.spec.termination
    parts = [f"at most {plural(termination.max_rounds, 'round')}"]
    if termination.max_duration_seconds is not None:
        parts.append(f"at most {duration(timedelta(seconds=termination.max_duration_seconds))}")
    if target := termination.target_metric:
        bound = f"≥ {target.at_least}" if target.at_least is not None else f"≤ {target.at_most}"
        parts.append(f"until {target.name} {bound}")
    return ", ".join(parts)


def shape(federation: Federation) -> str:
    """`4 learners in 2 groups, Synchronous, FedAvg`, and how models travel if not as they are: `Int8 with Zstd`."""
    spec = federation.spec
    learners = plural(spec.total_learners, "learner")
    groups = plural(len(spec.learner_groups), "group")
    parts = [f"{learners} in {groups}", spec.protocol.type.value, spec.aggregation.rule.value]
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

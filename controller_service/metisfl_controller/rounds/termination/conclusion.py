"""Why a federation ends."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.spec.termination import MetricSource


@dataclass(frozen=True)
class Conclusion:
    """`reason` is one documented CamelCase word, `message` a sentence for people."""

    reason: str
    message: str
    complete: bool = True
    """False: the federation has failed."""


def metric_name(name: str, source: MetricSource) -> str:
    """As people are told of it."""
    return f"evaluators' {name}" if source is MetricSource.EVALUATORS else name

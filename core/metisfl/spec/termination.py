"""`spec.termination`: when to stop."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import MetricName, SignedDecimalString, SpecModel
from metisfl.spec.rule import Json, Rule


class TargetMetricSpec(SpecModel):
    """Ends the federation when a model version reaches it. Set exactly one bound."""

    name: MetricName
    """As the learner's `evaluate` names it."""

    at_least: SignedDecimalString | None = None
    """For metrics that grow as the model gets better, such as accuracy."""

    at_most: SignedDecimalString | None = None
    """For metrics that shrink as the model gets better, such as loss."""


class TerminationSpec(SpecModel):
    """When to stop; the first that applies."""

    max_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Committed rounds after which the federation is complete."""

    max_duration_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Wall-clock time since the first round began. The round under way then is abandoned."""

    target_metric: TargetMetricSpec | None = None


def _exactly_one_bound(target: Json) -> bool:
    return ("atLeast" in target) != ("atMost" in target)


RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec", "termination", "targetMetric"),
        message="set exactly one of atLeast and atMost",
        holds=_exactly_one_bound,
        cel="has(self.atLeast) != has(self.atMost)",
    ),
)

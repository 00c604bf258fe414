"""`spec.termination`: when to stop."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import DecimalString, MetricName, SignedDecimalString, SpecModel
from metisfl.spec.rule import Json, Rule

_Versions = Annotated[int, Field(ge=1, le=10_000)]


class MetricSource(StrEnum):
    LEARNERS = "Learners"
    EVALUATORS = "Evaluators"


class Goal(StrEnum):
    MAXIMISE = "Maximise"
    MINIMISE = "Minimise"


class TargetMetricSpec(SpecModel):
    """Ends the federation when model versions reach it. Set exactly one bound."""

    name: MetricName
    """As the learner's `evaluate` names it."""

    at_least: SignedDecimalString | None = None
    """For metrics that grow as the model gets better, such as accuracy."""

    at_most: SignedDecimalString | None = None
    """For metrics that shrink as the model gets better, such as loss."""

    patience: _Versions = 1
    """So many evaluated versions in a row must reach it."""

    source: MetricSource = MetricSource.LEARNERS
    """Whose metrics count. Learners: the mean over the learners' held-out examples. Evaluators: the mean over those of
    learner groups with role Evaluator."""


class PlateauSpec(SpecModel):
    """Ends the federation when a metric does not get better any more."""

    metric: MetricName
    """As the learner's `evaluate` names it."""

    rounds: _Versions = 5
    """So many evaluated versions in a row without a better value than the best before them."""

    min_delta: DecimalString = "0"
    """A value counts as better when it is so by more than this, as a decimal string."""

    goal: Goal
    """Maximise: higher is better, as for accuracy. Minimise: lower is better, as for loss."""

    source: MetricSource = MetricSource.LEARNERS
    """Whose metrics count. Learners: the mean over the learners' held-out examples. Evaluators: the mean over those of
    learner groups with role Evaluator."""


class TerminationSpec(SpecModel):
    """When to stop; the first that applies."""

    max_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Committed rounds after which the federation is complete; with protocol Asynchronous, model versions."""

    max_duration_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Wall-clock time since the first round began. The round under way then is abandoned."""

    target_metric: TargetMetricSpec | None = None
    plateau: PlateauSpec | None = None

    too_few_learners_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """The federation fails when fewer learners than a round needs to start have been ready for this long; by default
    they are waited for. A round under way then is abandoned."""


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

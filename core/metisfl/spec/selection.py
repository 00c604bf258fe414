"""`spec.selection`: who takes part in a round."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import MetricName, PositiveFraction, SpecModel
from metisfl.spec.rule import Rule

_Learners = Annotated[int, Field(ge=1, le=100_000)]
_Seed = Annotated[int, Field(ge=0, le=2_147_483_647)]


class SelectionType(StrEnum):
    ALL = "All"
    RANDOM = "Random"
    ROUND_ROBIN = "RoundRobin"
    POWER_OF_CHOICE = "PowerOfChoice"
    PER_GROUP = "PerGroup"


class RandomSpec(SpecModel):
    """A share of the learners, drawn anew for each round."""

    fraction: PositiveFraction
    """Of the learners that are ready, rounded up; above 0 and at most 1, as a decimal string."""

    seed: _Seed = 0
    """Another seed draws other learners; the same seed always draws the same."""


class RoundRobinSpec(SpecModel):
    """Everybody in turn."""

    learners: _Learners
    """How many take part in a round: those whose last part is longest ago."""


class PowerOfChoiceSpec(SpecModel):
    """Learners with the highest loss, of some that are drawn by the size of their data."""

    candidates: _Learners
    """How many are drawn; at least as many as take part."""

    learners: _Learners
    """How many take part: those with the highest last known value of the metric."""

    metric: MetricName = "loss"
    """A metric that is lower for a better model, as the learner's `evaluate` or `train` names it."""

    seed: _Seed = 0
    """Another seed draws other candidates."""


class PerGroupSpec(SpecModel):
    """As many of each learner group."""

    learners: _Learners
    """How many of each group take part, in turn; a smaller group gives all it has."""


class SelectionSpec(SpecModel):
    """Which learners take part in a round. Only the member that `type` names may be set."""

    type: SelectionType = SelectionType.ALL
    """All: every connected learner. Random: a fraction of them, drawn anew each round. RoundRobin: so many in turn.
    PowerOfChoice: those with the highest loss among some drawn by data size (arXiv 2010.01243). PerGroup: so many of
    each learner group."""

    random: RandomSpec | None = None
    """For type Random, which needs it."""

    round_robin: RoundRobinSpec | None = None
    """For type RoundRobin, which needs it."""

    power_of_choice: PowerOfChoiceSpec | None = None
    """For type PowerOfChoice, which needs it."""

    per_group: PerGroupSpec | None = None
    """For type PerGroup, which needs it."""

    min_learners: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """A round starts only when this many learners are ready; by default as many as the first quorum needs."""


def _only_for(member: str, kind: SelectionType) -> Rule:
    return Rule(
        path=("spec", "selection"),
        message=f"{member} is for type {kind}, which needs it",
        holds=lambda selection: (member in selection) == (selection.get("type") == kind),
        cel=f"has(self.{member}) == (self.type == '{kind}')",
    )


RULES: tuple[Rule, ...] = (
    _only_for("random", SelectionType.RANDOM),
    _only_for("roundRobin", SelectionType.ROUND_ROBIN),
    _only_for("powerOfChoice", SelectionType.POWER_OF_CHOICE),
    _only_for("perGroup", SelectionType.PER_GROUP),
    Rule(
        path=("spec", "selection", "powerOfChoice"),
        message="candidates must be at least learners, which are taken from them",
        holds=lambda choice: choice["candidates"] >= choice["learners"],
        cel="self.candidates >= self.learners",
    ),
)

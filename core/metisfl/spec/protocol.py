"""`spec.protocol`: how training is organised."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import DecimalString, PositiveDecimalString, PositiveFraction, SpecModel
from metisfl.spec.rule import Json, Rule


class ProtocolType(StrEnum):
    SYNCHRONOUS = "Synchronous"
    SEMI_SYNCHRONOUS = "SemiSynchronous"
    ASYNCHRONOUS = "Asynchronous"

    @property
    def unit(self) -> str:
        """What is counted: each makes one model version."""
        return "version" if self is ProtocolType.ASYNCHRONOUS else "round"


class LateUpdates(StrEnum):
    DROP = "Drop"
    NEXT_ROUND = "NextRound"


class StalenessType(StrEnum):
    CONSTANT = "Constant"
    POLYNOMIAL = "Polynomial"
    HINGE = "Hinge"


QuorumPercent = Annotated[int, Field(ge=1, le=100)]
DeadlineSeconds = Annotated[int, Field(ge=1, le=604_800)]


class SynchronousSpec(SpecModel):
    """All participants train from the same version; the round closes when all have reported."""

    quorum_percent: QuorumPercent = 100
    """Share of a round's participants, in percent and rounded up, whose updates make the round valid when others are
    lost or late. What overSelect asks for beyond the needed is not counted."""

    round_deadline_seconds: DeadlineSeconds = 600
    """After this long the round closes with what has arrived, if that is a quorum; otherwise the missing learners are
    asked again, and after three such attempts the federation fails."""

    over_select: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Ask this many learners more than are needed. The round closes as soon as the needed number has delivered; what
    the others are still at is for lateUpdates."""

    late_updates: LateUpdates = LateUpdates.DROP
    """Drop: who has not delivered when the round closes stops and takes part in the next one. NextRound: it goes on,
    and its update counts in the next round, with its full weight; one that is late by a second round is dropped."""


class SemiSynchronousSpec(SpecModel):
    """Every learner trains for about as long as the slowest: rounds in which the fast ones do more batches."""

    lambda_: Annotated[PositiveDecimalString, Field(alias="lambda")] = "1"
    """A round's time for training, as a multiple of the time that the slowest learner takes for one epoch."""

    recompute_every_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """After this many rounds that time, and each learner's batches, are computed anew from the latest timings."""

    quorum_percent: QuorumPercent = 100
    """Share of a round's participants, in percent and rounded up, whose updates make the round valid when others are
    lost or late."""

    round_deadline_seconds: DeadlineSeconds = 600
    """After this long the round closes with what has arrived, if that is a quorum; otherwise the missing learners are
    asked again, and after three such attempts the federation fails."""


class StalenessSpec(SpecModel):
    """How much less an update counts for each version, τ in all, that the global model went on while it was made."""

    type: StalenessType = StalenessType.POLYNOMIAL
    """Constant: 1. Polynomial: (1 + τ)^-exponent. Hinge: 1 up to τ = b, then 1 / (a·(τ - b) + 1)."""

    exponent: DecimalString | None = None
    """For type Polynomial. Default: 0.5."""

    a: DecimalString | None = None
    """For type Hinge: how steeply the weight falls. Default: 10."""

    b: Annotated[int, Field(ge=0, le=1000)] | None = None
    """For type Hinge: up to this staleness updates count in full. Default: 4."""

    @property
    def exponent_or_default(self) -> str:
        return self.exponent or "0.5"

    @property
    def a_or_default(self) -> str:
        return self.a or "10"

    @property
    def b_or_default(self) -> int:
        return 4 if self.b is None else self.b


class AsynchronousSpec(SpecModel):
    """Nobody waits for anybody: learners train without pause, and their updates go into the global model as they come.
    What is counted in rounds elsewhere is counted in model versions here."""

    buffer_size: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Updates that make a new version: 1 mixes each learner's model into the global one (FedAsync), more adds the mean
    of what so many updates changed (FedBuff)."""

    mixing: PositiveFraction = "0.6"
    """How far a new version goes towards its updates when they are not stale: above 0 and at most 1."""

    staleness: StalenessSpec | None = None
    """How much less stale updates count. Default: type Polynomial, exponent 0.5."""

    max_staleness: Annotated[int, Field(ge=0, le=1000)] = 20
    """Updates made from a version that is older than this are dropped, and their learners begin anew."""

    round_deadline_seconds: DeadlineSeconds = 600
    """When no update has arrived for this long, idle learners are asked again, and after three such times the
    federation fails."""

    @property
    def staleness_or_default(self) -> StalenessSpec:
        return self.staleness or StalenessSpec()


class ProtocolSpec(SpecModel):
    """How training is organised. Only the member that `type` names may be set."""

    type: ProtocolType = ProtocolType.SYNCHRONOUS
    """Synchronous: rounds in which all participants start from the same version. SemiSynchronous: the same, and all
    train for about the same time. Asynchronous: no rounds."""

    synchronous: SynchronousSpec | None = None
    """For type Synchronous: who is waited for, for how long, and what becomes of updates that come too late."""

    semi_synchronous: SemiSynchronousSpec | None = None
    """For type SemiSynchronous: every learner trains for about as long as the slowest; fast ones do more batches."""

    asynchronous: AsynchronousSpec | None = None
    """For type Asynchronous: updates go into the global model as they come, one or several to a version. What is
    counted in rounds elsewhere is counted in versions here."""

    @property
    def member(self) -> SynchronousSpec | SemiSynchronousSpec | AsynchronousSpec:
        """What `type` names, or its defaults."""
        match self.type:
            case ProtocolType.SYNCHRONOUS:
                return self.synchronous_or_default
            case ProtocolType.SEMI_SYNCHRONOUS:
                return self.semi_synchronous_or_default
            case ProtocolType.ASYNCHRONOUS:
                return self.asynchronous_or_default

    @property
    def needs_updates(self) -> bool:
        """Whether learners have to send what their training changed, and not their whole models."""
        return self.type is ProtocolType.ASYNCHRONOUS and self.asynchronous_or_default.buffer_size > 1

    @property
    def outlives_versions(self) -> bool:
        """Whether the work of a task may still count when there is a newer version than the one it began with."""
        late = self.synchronous_or_default.late_updates is LateUpdates.NEXT_ROUND
        return late or self.type is ProtocolType.ASYNCHRONOUS

    @property
    def synchronous_or_default(self) -> SynchronousSpec:
        return self.synchronous or SynchronousSpec()

    @property
    def semi_synchronous_or_default(self) -> SemiSynchronousSpec:
        return self.semi_synchronous or SemiSynchronousSpec()

    @property
    def asynchronous_or_default(self) -> AsynchronousSpec:
        return self.asynchronous or AsynchronousSpec()


_MEMBERS = {
    "synchronous": ProtocolType.SYNCHRONOUS,
    "semiSynchronous": ProtocolType.SEMI_SYNCHRONOUS,
    "asynchronous": ProtocolType.ASYNCHRONOUS,
}


def _only_the_named_member(protocol: Json) -> bool:
    return all(member not in protocol or protocol.get("type") == type_ for member, type_ in _MEMBERS.items())


def _only_for(field: str, type_: StalenessType) -> Rule:
    unset = "!has(self.type) || " if type_ is StalenessType.POLYNOMIAL else ""
    return Rule(
        path=("spec", "protocol", "asynchronous", "staleness"),
        message=f"{field} is for type {type_} only",
        holds=lambda staleness: field not in staleness or staleness.get("type", StalenessType.POLYNOMIAL) == type_,
        cel=f"!has(self.{field}) || {unset or 'has(self.type) && '}self.type == '{type_}'",
    )


RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec", "protocol"),
        message="set only the member that type names: synchronous, semiSynchronous or asynchronous",
        holds=_only_the_named_member,
        cel=" && ".join(f"(!has(self.{member}) || self.type == '{type_}')" for member, type_ in _MEMBERS.items()),
    ),
    _only_for("exponent", StalenessType.POLYNOMIAL),
    _only_for("a", StalenessType.HINGE),
    _only_for("b", StalenessType.HINGE),
)

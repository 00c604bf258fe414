"""What the protocols other than Synchronous are told beside the plan that all share."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.spec.protocol import AsynchronousSpec, SemiSynchronousSpec
from metisfl_controller.rounds.protocols.staleness import Weight, weight_of


@dataclass(frozen=True)
class Pacing:
    """SemiSynchronous: how long learners train."""

    lambda_: float
    """A multiple of the slowest learner's time for one epoch."""

    recompute_every: int
    """Rounds."""

    batch_size: int

    @classmethod
    def of(cls, spec: SemiSynchronousSpec, batch_size: int) -> Pacing:
        return cls(float(spec.lambda_), spec.recompute_every_rounds, batch_size)


@dataclass(frozen=True)
class Buffering:
    """Asynchronous: what makes a new version."""

    size: int
    """Updates."""

    mixing: float
    """How far a version goes towards updates that are not stale, above 0 and at most 1."""

    weight: Weight
    """Of updates that are stale."""

    max_staleness: int
    """Versions."""

    @classmethod
    def of(cls, spec: AsynchronousSpec) -> Buffering:
        return cls(spec.buffer_size, float(spec.mixing), weight_of(spec.staleness_or_default), spec.max_staleness)

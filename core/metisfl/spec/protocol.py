"""`spec.protocol`: how rounds are run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import SpecModel


class ProtocolType(StrEnum):
    SYNCHRONOUS = "Synchronous"


class SynchronousSpec(SpecModel):
    """All participants train from the same version; the round closes when all have reported."""

    quorum_percent: Annotated[int, Field(ge=1, le=100)] = 100
    """Share of a round's participants, in percent and rounded up, whose updates make the round valid when others are
    lost or late."""

    round_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    """After this long the round closes with what has arrived, if that is a quorum; otherwise the missing learners are
    asked again, and after three such attempts the federation fails."""


class ProtocolSpec(SpecModel):
    """How rounds are run. Only the member that `type` names may be set."""

    type: ProtocolType = ProtocolType.SYNCHRONOUS
    """Synchronous: rounds in which all participants start from the same version."""

    synchronous: SynchronousSpec | None = None
    """For type Synchronous."""

    @property
    def synchronous_or_default(self) -> SynchronousSpec:
        return self.synchronous or SynchronousSpec()

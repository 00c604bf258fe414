"""Which share of the data each learner takes.

Count and offsets of the shares are fixed when the federation is created (`metisfl.partitions`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from metisfl.partitions import Shares
from metisfl.spec import FederationSpec


class PartitionPlan(BaseModel):
    """As the operator writes it beside the federation: `{"count": 4, "offsets": {"silo-a": 0, "silo-b": 2}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=1)]
    offsets: dict[str, Annotated[int, Field(ge=0)]]

    @classmethod
    def of(cls, spec: FederationSpec) -> PartitionPlan:
        """Without an operator: as it would make it for a new federation."""
        shares = Shares.of(spec)
        return cls(count=shares.count, offsets=dict(shares.offsets))

    def index(self, group: str, ordinal: int) -> int:
        """The share of one learner. Raises ValueError when there is none left for it."""
        if group not in self.offsets:
            raise ValueError(f"group '{group}' has no share of the data: the groups with one are {list(self.offsets)}")
        index = self.offsets[group] + ordinal
        if index >= self.count:
            raise ValueError(
                f"learner {ordinal} of group '{group}' would take share {index}, and the data was divided into "
                f"{self.count} when the federation was created; set learner.partitions when creating one that grows"
            )
        return index

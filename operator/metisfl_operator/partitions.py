"""Which shares of the data belong to which learner group, for as long as the federation lives.

Count and offsets are settled when the federation is created and only ever extended (`metisfl.partitions`), so the plan
is stored with the federation's volume.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metisfl.partitions import Shares


class PlanError(ValueError):
    """A stored plan that cannot be read; guessing one anew could move data between sites."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    count: int = Field(ge=1)
    offsets: dict[str, int]
    sizes: dict[str, int]


@dataclass(frozen=True)
class PartitionPlan(Shares):
    """Shares as they are stored, and as the controller is told of them."""

    @classmethod
    def parse(cls, text: str) -> PartitionPlan:
        """What `text()` wrote. Raises PlanError."""
        try:
            stored = _Stored.model_validate_json(text)
        except ValidationError as error:
            raise PlanError(f"no readable partition plan: {error.errors()[0]['msg']}") from error
        if stored.offsets.keys() != stored.sizes.keys():
            raise PlanError("no readable partition plan: offsets and sizes name different groups")
        return cls(stored.count, stored.offsets, stored.sizes)

    def text(self) -> str:
        return json.dumps({"count": self.count, "offsets": self.offsets, "sizes": self.sizes}, sort_keys=True)

    def for_controller(self) -> dict[str, Any]:
        return {"count": self.count, "offsets": self.offsets}

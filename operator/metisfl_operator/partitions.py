"""Which shares of the data belong to which learner group, for as long as the federation lives.

A learner's share is its group's offset plus its ordinal. Count and offsets are settled when the federation is created
and only ever extended, so that scaling never moves data from one site to another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metisfl.spec import FederationSpec, LearnerGroup


class PlanError(ValueError):
    """A stored plan that cannot be read; guessing one anew could move data between sites."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    count: int = Field(ge=1)
    offsets: dict[str, int]
    sizes: dict[str, int]


@dataclass(frozen=True)
class PartitionPlan:
    """`sizes` holds the most learners each group ever had: those shares are its own, also while it has fewer."""

    count: int
    offsets: dict[str, int]
    sizes: dict[str, int]

    @classmethod
    def of(cls, spec: FederationSpec) -> PartitionPlan:
        """The plan of a new federation: groups take consecutive shares, in the order of the spec."""
        return cls(spec.partition_count, {}, {}).extended(spec.training_groups)

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

    def extended(self, groups: Iterable[LearnerGroup]) -> PartitionPlan:
        """The plan with room for groups that are new or have grown, as far as there are shares left."""
        plan = PartitionPlan(self.count, dict(self.offsets), dict(self.sizes))
        for group in groups:
            if group.name not in plan.offsets:
                start = plan._first_free()
                size = min(group.size, self.count - start)
                if size > 0:
                    plan.offsets[group.name], plan.sizes[group.name] = start, size
            else:
                size = min(group.size, plan.room(group.name))
                plan.sizes[group.name] = max(plan.sizes[group.name], size)
        return plan

    def room(self, group: str) -> int:
        """The most learners a group can have: up to the next group's first share, or to the last share."""
        if group not in self.offsets:
            return 0
        start = self.offsets[group]
        return min((offset for offset in self.offsets.values() if offset > start), default=self.count) - start

    def _first_free(self) -> int:
        return max((offset + self.sizes[name] for name, offset in self.offsets.items()), default=0)

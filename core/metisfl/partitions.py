"""Which shares of the data belong to which learner group: plain arithmetic, for the operator and the controller.

A learner's share is its group's offset plus its ordinal. Groups take consecutive shares, in the order of the spec, and
what a group has once had stays its own: so scaling never moves data from one site to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from metisfl.spec import FederationSpec, LearnerGroup


@dataclass(frozen=True)
class Shares:
    """`sizes` holds the most learners each group ever had: those shares are its own, also while it has fewer."""

    count: int
    offsets: Mapping[str, int]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, spec: FederationSpec) -> Self:
        """Those of a new federation."""
        return cls(spec.partition_count, {}, {}).extended(spec.training_groups)

    def extended(self, groups: Iterable[LearnerGroup]) -> Self:
        """With room for groups that are new or have grown, as far as there are shares left."""
        shares = self
        for group in groups:
            offset = shares.offsets.get(group.name, shares._first_free)
            size = min(group.size, shares._next_after(offset) - offset)
            if group.name in shares.offsets or size > 0:
                size = max(size, shares.sizes.get(group.name, 0))
                shares = replace(
                    shares,
                    offsets={**shares.offsets, group.name: offset},
                    sizes={**shares.sizes, group.name: size},
                )
        return shares

    def room(self, group: str) -> int:
        """The most learners a group can have: up to the next group's first share, or to the last share."""
        if group not in self.offsets:
            return 0
        return self._next_after(self.offsets[group]) - self.offsets[group]

    def _next_after(self, offset: int) -> int:
        return min((other for other in self.offsets.values() if other > offset), default=self.count)

    @property
    def _first_free(self) -> int:
        return max((offset + self.sizes[name] for name, offset in self.offsets.items()), default=0)

"""From a memory budget to a plan: what of model size lies in memory, and what in mapped files.

Beside its upload slots, a controller holds at most, all at once, while it finishes a round:

    what the rule keeps     sums of 8 bytes an element; moments of a server optimiser; the inner products of
                            K updates, about 8 · K² bytes a time
    the next model          1 model
    the served model        1 model, which is also the base of the learners' updates
    as it travels           1 model: its chunk messages in Float32; in a narrower codec, its encoded form and those;
                            2 where tasks outlive the version that they began with

When that and one slot fit the budget, all of it lies in memory, with as many slots as fit; uploads beyond them wait, or
go to files. When not, everything of model size is a file in the state directory and is passed over tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metisfl.wire.layout import Buffer, Layout, aligned_zeros
from metisfl_controller.aggregation.mapped import mapped_zeros

DEFAULT_SHARE = 0.6
"""Of the memory that is there; the rest is for the process itself, messages on their way, and the disk cache."""

SLOTS = 4
"""Slots of large models: enough to fold while others arrive."""

SMALL_BYTES = 128 << 20
"""Slots of small models may be more, up to this many bytes in all: with four a thousand learners would wait for each
other's round trips."""

MAX_SLOTS = 4096


def sums_bytes(layout: Layout) -> int:
    """Memory of the sums that a rule of the mean family keeps: a float64 for each element."""
    return 8 * layout.parameters


def default_budget(available: int) -> int:
    """The budget when the Federation names none, of `available` bytes."""
    return int(available * DEFAULT_SHARE)


@dataclass(frozen=True)
class MemoryPlan:
    """`slots` uploads of `slot_bytes` are taken in at once; `on_disk`: they and all models are mapped files."""

    slot_bytes: int
    slots: int
    on_disk: bool

    @classmethod
    def of(
        cls,
        budget: int,
        layout: Layout,
        upload_bytes: int,
        kept_bytes: int,
        max_slots: int = MAX_SLOTS,
        travelling: int = 1,
    ) -> MemoryPlan:
        """The plan for a layout under `budget` bytes, when encoded uploads have `upload_bytes` and the rule keeps
        `kept_bytes`, with so many versions `travelling`. There are no more than `max_slots`, also where they would
        fit."""
        rest = budget - (kept_bytes + (2 + travelling) * layout.nbytes)
        wanted = min(max_slots, max(SLOTS, SMALL_BYTES // max(1, upload_bytes)))
        if rest < upload_bytes:
            return cls(upload_bytes, min(SLOTS, wanted), True)
        return cls(upload_bytes, min(wanted, rest // max(1, upload_bytes)), False)


@dataclass(frozen=True)
class ModelMemory:
    """Memory for everything of model size, within `budget` bytes; what does not fit goes to files in `directory`.

    `kept_bytes`: what the aggregation rule keeps for a layout. `max_slots`: at most so many uploads are in memory at
    once. `travelling`: versions that are kept as they travel.
    """

    budget: int
    directory: Path
    kept_bytes: Callable[[Layout], int] = sums_bytes
    max_slots: int = MAX_SLOTS
    travelling: int = 1

    def plan(self, layout: Layout, upload_bytes: int | None = None) -> MemoryPlan:
        """Encoded uploads have the model's own size by default."""
        nbytes = layout.nbytes if upload_bytes is None else upload_bytes
        return MemoryPlan.of(self.budget, layout, nbytes, self.kept_bytes(layout), self.max_slots, self.travelling)

    def allocator(self, layout: Layout) -> Callable[[int], Buffer]:
        """Makes zeroed, aligned buffers for models of this layout and their sums. It raises OSError when the disk has
        no room."""
        if not self.plan(layout).on_disk:
            return aligned_zeros
        return lambda nbytes: mapped_zeros(self.directory, nbytes)

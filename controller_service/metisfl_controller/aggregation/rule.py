"""What the engine asks of an aggregation rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from metisfl.wire.layout import Buffer


@dataclass(frozen=True)
class Staged:
    """A verified upload in its encoded form, and what it weighs: finite, not negative."""

    content: Buffer
    weight: float


class Rule(Protocol):
    """One round at a time: `reset`, any number of `fold`, `finish`."""

    def reset(self) -> None: ...

    def fold(self, uploads: Sequence[Staged]) -> None:
        """Add uploads; their memory may be reused afterwards."""

    def finish(self, base: Buffer | None, last: Sequence[Staged]) -> Buffer:
        """Add the `last` uploads and return the new model; `base` is what updates were made from. Raises ValueError
        when there is none to return."""

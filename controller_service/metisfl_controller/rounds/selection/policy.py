"""What a selection policy knows and decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Candidate:
    """A learner that could take part now, and what is known of it."""

    learner: str
    examples: int = 0
    """Of its training data."""

    last_round: int = 0
    """The last round in which it had a part; 0: none so far."""

    rounds: int = 0
    """In how many rounds it had a part."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last value that it reported of each metric, of training or of evaluation."""

    @property
    def group(self) -> str:
        """The learner group, or site, in `<group>-<ordinal>`."""
        return self.learner.rpartition("-")[0]


class Selection(Protocol):
    """A policy. It has no memory, so a restarted controller that knows the same of the learners selects the same."""

    @property
    def metric(self) -> str | None:
        """The metric that it goes by, if it goes by any."""

    def select(self, ready: Sequence[Candidate], round: int, extra: int = 0) -> list[str]:
        """Learners for this round (from 1), out of those `ready`, which come in their natural order; `extra` more than
        the policy asks for, as far as there are any, to make up for some that will not deliver."""

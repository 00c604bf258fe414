"""What a learner reports of a training task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Work:
    """What a learner did for its update: the size of its training data, its optimiser steps, the seconds they took."""

    examples: int
    batches: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)

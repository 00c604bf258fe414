"""What a learner reports of a training task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What a learner did for its update: the size of its training data, its optimiser steps, the seconds they took."""

    examples: int
    batches: int = 0
    seconds: float = 0.0

"""What the learner's tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metisfl import logs
from metisfl_learner import LearnerContext, PartitionPlace


@pytest.fixture
def make_context() -> Callable[..., LearnerContext]:
    def make(index: int = 0, count: int = 1, **parameters: str) -> LearnerContext:
        place = PartitionPlace(index, count)
        return LearnerContext(f"silo-{index}", "test", parameters, place, None, logs.logger("test"))

    return make

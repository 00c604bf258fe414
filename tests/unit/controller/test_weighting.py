"""What an update counts for: the definitions, and the mean that comes of them against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.spec.aggregation import Weighting
from metisfl_controller.rounds.weighting import WEIGHTINGS
from metisfl_controller.rounds.work import Work

works = st.builds(Work, st.integers(1, 2**48), st.integers(1, 2**48), st.floats(0, 1e6))


@pytest.mark.parametrize(
    ("weighting", "weight"), [("TrainingExamples", 120), ("CompletedBatches", 8), ("Participants", 1)]
)
def test_each_weighting_counts_what_its_name_says(weighting: str, weight: float) -> None:
    assert WEIGHTINGS[Weighting(weighting)](Work(examples=120, batches=8, seconds=2.5)) == weight


def test_every_value_of_the_spec_has_its_function() -> None:
    assert set(WEIGHTINGS) == set(Weighting)


@given(st.lists(st.tuples(works, st.floats(-1e3, 1e3)), min_size=1, max_size=20), st.sampled_from(Weighting))
def test_weights_make_the_mean_of_the_definition(updates: list[tuple[Work, float]], weighting: Weighting) -> None:
    weights = np.array([WEIGHTINGS[weighting](work) for work, _ in updates])
    counts = {
        Weighting.TRAINING_EXAMPLES: [work.examples for work, _ in updates],
        Weighting.COMPLETED_BATCHES: [work.batches for work, _ in updates],
        Weighting.PARTICIPANTS: [1] * len(updates),
    }[weighting]
    values = np.array([value for _, value in updates])
    expected = sum(n * v for n, v in zip(counts, values, strict=True)) / sum(counts)
    assert np.all(weights > 0)
    assert np.average(values, weights=weights) == pytest.approx(expected, rel=1e-9, abs=1e-9)

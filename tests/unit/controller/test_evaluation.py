"""Federated metrics: example-weighted means."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl_controller.rounds.evaluation import Mean, Report, weighted_means

values = st.floats(allow_nan=False, allow_infinity=False)
reports = st.lists(
    st.builds(Report, st.integers(0, 2**48), st.dictionaries(st.sampled_from(["accuracy", "loss"]), values)),
    max_size=20,
)


@given(reports)
def test_means_are_those_of_exact_arithmetic(given_reports: list[Report]) -> None:
    got = weighted_means(given_reports)
    for name in ("accuracy", "loss"):
        counted = [(r.examples, r.metrics[name]) for r in given_reports if r.examples and name in r.metrics]
        assert (name in got) == bool(counted)
        if counted:
            total = sum(n for n, _ in counted)
            exact = sum(n * Fraction(v) for n, v in counted) / total
            scale = max(abs(v) for _, v in counted)
            assert got[name].examples == total
            assert abs(Fraction(got[name].value) - exact) <= Fraction(scale) * Fraction(len(counted), 2**51) + 2**-1000


@given(st.floats(-1e308, 1e308), st.lists(st.integers(1, 2**48), min_size=1, max_size=20))
def test_the_mean_of_equal_values_is_that_value(value: float, examples: list[int]) -> None:
    """A target of 0.97 is met by learners that all report 0.97."""
    assert weighted_means(Report(n, {"m": value}) for n in examples) == {"m": Mean(value, sum(examples))}


@pytest.mark.parametrize(
    ("given_reports", "expected"),
    [
        ([], {}),
        ([Report(0, {"a": 1.0})], {}),
        ([Report(10, {"a": 1.0}), Report(0, {"a": 0.0})], {"a": Mean(1.0, 10)}),
        ([Report(10, {"a": 1.0}), Report(30, {"b": 2.0})], {"a": Mean(1.0, 10), "b": Mean(2.0, 30)}),
        ([Report(1, {"a": 0.0}), Report(3, {"a": 1.0})], {"a": Mean(0.75, 4)}),
    ],
)
def test_cases(given_reports: list[Report], expected: dict[str, Mean]) -> None:
    assert weighted_means(given_reports) == expected

"""Shares of a data set: together everything, disjoint, never empty, and the same for everyone who asks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl_learner.partitioning import PartitionError, dirichlet, held_out_split, iid

# What the functions give for twelve examples of three classes and seed 7.
SPLIT = [6, 10, 11]
SKEWED = [[2, 6, 11], [0, 1, 3, 4, 7], [5, 8, 9, 10]]
EVEN = [[2, 5, 7, 10], [0, 1, 8, 11], [3, 4, 6, 9]]

label_lists = st.lists(st.integers(0, 5), min_size=8, max_size=300)
seeds = st.integers(0, 2**32 - 1)


def assert_partition(shares: list[np.ndarray], examples: int) -> None:
    """Every example is in exactly one share."""
    assert sorted(np.concatenate(shares).tolist()) == list(range(examples))


@given(labels=label_lists, count=st.integers(1, 8), alpha=st.floats(1e-4, 1e4), seed=seeds)
def test_dirichlet_gives_each_example_to_one_learner(labels: list[int], count: int, alpha: float, seed: int) -> None:
    shares = [dirichlet(labels, index, count, alpha, seed) for index in range(count)]
    assert_partition(shares, len(labels))
    assert min(map(len, shares)) >= 1


@given(labels=label_lists, count=st.integers(1, 4), alpha=st.floats(1e-3, 10), seed=seeds)
def test_dirichlet_keeps_its_minimum(labels: list[int], count: int, alpha: float, seed: int) -> None:
    minimum = len(labels) // count
    shares = [dirichlet(labels, index, count, alpha, seed, minimum) for index in range(count)]
    assert_partition(shares, len(labels))
    assert min(map(len, shares)) >= minimum


@given(
    examples=st.integers(1, 500),
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=10),
    seed=seeds,
)
def test_iid_gives_each_example_to_one_learner(examples: int, weights: list[float], seed: int) -> None:
    count = min(len(weights), examples)
    shares = [iid(examples, index, count, seed, weights[:count]) for index in range(count)]
    assert_partition(shares, examples)
    assert min(map(len, shares)) >= 1


@given(examples=st.integers(10, 500), count=st.integers(1, 10), seed=seeds)
def test_iid_shares_are_equal(examples: int, count: int, seed: int) -> None:
    sizes = [len(iid(examples, index, count, seed)) for index in range(count)]
    assert max(sizes) - min(sizes) <= 1


def test_iid_shares_follow_the_weights() -> None:
    assert [len(iid(1000, index, 3, weights=[6, 3, 1])) for index in range(3)] == [600, 300, 100]


@given(labels=label_lists, fraction=st.floats(0.1, 0.9), seed=seeds)
def test_split_is_stratified(labels: list[int], fraction: float, seed: int) -> None:
    split = held_out_split(labels, fraction, seed)
    assert_partition([split.train, split.test], len(labels))
    assert len(split.test) == round(fraction * len(labels))
    for label in set(labels):
        held_out = np.count_nonzero(np.asarray(labels)[split.test] == label)
        assert abs(held_out - len(split.test) * labels.count(label) / len(labels)) < 1


def test_shares_are_pinned() -> None:
    """The same numbers on every machine and with every NumPy: learners must agree without talking."""
    labels = [0, 1, 2] * 4
    assert held_out_split(labels, 0.25, seed=7).test.tolist() == SPLIT
    assert [dirichlet(labels, i, 3, 0.5, seed=7).tolist() for i in range(3)] == SKEWED
    assert [iid(12, i, 3, seed=7).tolist() for i in range(3)] == EVEN


def test_small_alpha_skews_classes_and_large_alpha_does_not() -> None:
    labels = np.arange(10_000) % 10

    def largest_class(alpha: float) -> float:
        shares = [labels[dirichlet(labels, index, 5, alpha, seed=1)] for index in range(5)]
        return float(np.mean([np.bincount(share, minlength=10).max() / len(share) for share in shares]))

    assert largest_class(0.05) > 0.4
    assert largest_class(1000) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iid(10, 3, 3), "share 3 of 3 does not exist"),
        (lambda: iid(2, 0, 3), "2 examples cannot be divided among 3"),
        (lambda: iid(10, 0, 3, weights=[1, 2]), "weights must be 3 positive numbers"),
        (lambda: iid(10, 0, 2, weights=[1, 0]), "weights must be 2 positive numbers"),
        (lambda: dirichlet([0, 1], 0, 2, alpha=0), "alpha is 0"),
        (lambda: dirichlet([0, 1, 1], 0, 2, alpha=1, minimum=2), "at least 2 each"),
        (lambda: dirichlet([[0], [1]], 0, 2, alpha=1), "one label an example"),
        (lambda: held_out_split([0, 1], fraction=0.1), "leaves one side of the split empty"),
    ],
)
def test_impossible_divisions_say_why(call: object, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        call()  # type: ignore[operator]

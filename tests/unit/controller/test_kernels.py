"""The fused kernels and FedAvg against plain float64 NumPy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metisfl.wire.layout import Layout
from metisfl_controller.aggregation.fedavg import FedAvg

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("kernels")

counts = st.integers(1, 60)
# One element, a few, around one kernel block of 8192, and several blocks with a rest.
sizes = st.sampled_from([1, 3, 100, 8191, 8192, 8193, 20_001])
seeds = st.integers(0, 2**32 - 1)


def random_models(rng: np.random.Generator, dtype: str, count: int, size: int) -> list[np.ndarray]:
    kind = np.dtype(dtype)
    if kind == np.bool_:
        return [rng.random(size) < 0.5 for _ in range(count)]
    if kind.kind == "f":
        return [(rng.standard_normal(size) * 10.0 ** rng.integers(-3, 4)).astype(kind) for _ in range(count)]
    # Sums of products with weights stay below 2**53, so float64 is exact and so is the oracle.
    bound = min(np.iinfo(kind).max, 2**30)
    return [rng.integers(max(-bound, np.iinfo(kind).min), bound, size, dtype=kind) for _ in range(count)]


def expected_mean(models: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """Σ w·m / Σ w in float64; the order of summing is the only freedom the kernels have."""
    stacked = np.stack(models).astype(np.float64)
    return np.average(stacked, axis=0, weights=np.array(weights, np.float64))


def tolerance(models: list[np.ndarray]) -> np.ndarray:
    """A bound on what another order of summation may change: a few ulp of the sum of absolute values."""
    magnitude = np.abs(np.stack(models).astype(np.float64)).max(axis=0)
    return magnitude * len(models) * np.finfo(np.float64).eps * 4


def average(models: list[np.ndarray], weights: list[float]) -> np.ndarray:
    layout = Layout.of({"t": models[0]})
    rule = FedAvg(layout)
    rule.reset()
    rule.fold([layout.pack({"t": model}) for model in models], weights)
    return layout.views(rule.finish())["t"]


@FAST
@given(st.sampled_from(FLOATS), counts, sizes, seeds)
def test_the_mean_of_floats(dtype: str, count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = random_models(rng, dtype, count, size)
    weights = [float(w) for w in rng.integers(1, 10_000, count)]
    got, expected = average(models, weights), expected_mean(models, weights)
    assert got.dtype == np.dtype(dtype)
    # Rounded once to the dtype: at most one unit in its last place from the rounded oracle.
    rounding = np.spacing(np.abs(expected).astype(got.dtype)).astype(np.float64)
    assert (np.abs(got.astype(np.float64) - expected) <= rounding + tolerance(models)).all()


@FAST
@given(st.sampled_from(INTEGERS), counts, sizes, seeds)
def test_integers_are_summed_exactly_and_rounded_once(dtype: str, count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = random_models(rng, dtype, count, size)
    weights = rng.integers(1, 1000, count)
    sums = sum(int(w) * m.astype(np.int64) for w, m in zip(weights, models, strict=True))
    expected = np.rint(sums.astype(np.float64) / float(weights.sum())).astype(dtype)
    got = average(models, [float(w) for w in weights])
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, expected)


@FAST
@given(counts, sizes, seeds)
def test_booleans_follow_the_weighted_majority(count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = random_models(rng, "bool", count, size)
    weights = rng.integers(1, 1000, count)
    votes = sum(int(w) * m.astype(np.int64) for w, m in zip(weights, models, strict=True))
    np.testing.assert_array_equal(average(models, [float(w) for w in weights]), 2 * votes > weights.sum())


def test_a_boolean_byte_that_is_neither_0_nor_1_has_one_vote() -> None:
    """Bytes come from the wire; 255 must not outvote the others."""
    layout = Layout.of({"t": np.zeros(4, np.bool_)})
    odd = layout.allocate()
    odd[:] = 255
    rule = FedAvg(layout)
    rule.fold([odd, layout.allocate(), layout.allocate()], [1.0, 1.0, 1.0])
    assert not layout.views(rule.finish())["t"].any()


@FAST
@given(counts, st.sampled_from([7, 8193]), seeds)
def test_batches_and_their_order_do_not_matter(count: int, size: int, seed: int) -> None:
    """Folding one by one, in odd groups or all at once, forwards or shuffled, gives the same mean."""
    rng = np.random.default_rng(seed)
    models = random_models(rng, "float32", count, size)
    weights = [float(w) for w in rng.integers(1, 1000, count)]
    layout = Layout.of({"t": models[0]})
    together = average(models, weights)
    rule = FedAvg(layout)
    order = [int(i) for i in rng.permutation(count)]
    while order:
        batch, order = order[: (step := int(rng.integers(1, 12)))], order[step:]
        rule.fold([layout.pack({"t": models[i]}) for i in batch], [weights[i] for i in batch])
    np.testing.assert_allclose(layout.views(rule.finish())["t"], together, rtol=1e-6, atol=0)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17])
def test_small_integers_average_exactly_for_every_batch_size(count: int) -> None:
    models = [np.full(9000, 3.0 * k, np.float32) for k in range(count)]
    weights = [float(k + 1) for k in range(count)]
    exact = sum(3 * k * (k + 1) for k in range(count)) / sum(k + 1 for k in range(count))
    assert set(average(models, weights).tolist()) == {float(np.float32(exact))}


def test_one_model_comes_back_unchanged() -> None:
    model = np.random.default_rng(1).standard_normal(10_000).astype(np.float32)
    np.testing.assert_array_equal(average([model], [4096.0]), model)


def test_a_model_of_many_kinds_with_empty_tensors() -> None:
    def model(k: int) -> dict[str, np.ndarray]:
        return {
            "w": np.full((2, 3), k, np.float32),
            "nothing": np.zeros((0, 5), np.float64),
            "steps": np.array(10 * k),
            "none": np.zeros(0, np.bool_),
            "half": np.full(3, k / 2, np.float16),
            "running": np.full(2, -k, np.float32),
        }

    layout = Layout.of(model(0), frozen=["running"])
    rule = FedAvg(layout)
    rule.fold([layout.pack(model(k)) for k in (1, 2, 4)], [1.0, 1.0, 2.0])
    mean = layout.views(rule.finish())
    assert {name: array.tolist() for name, array in mean.items()} == {
        "w": [[2.75] * 3] * 2,
        "nothing": [],
        "steps": 28,  # 27.5, ties to even
        "none": [],
        "half": [1.375] * 3,
        "running": [-2.75] * 2,
    }


def test_reset_forgets_the_round_before() -> None:
    layout = Layout.of({"t": np.zeros(5, np.float32)})
    rule = FedAvg(layout)
    rule.fold([layout.pack({"t": np.full(5, 100, np.float32)})], [9.0])
    rule.reset()
    rule.fold([layout.pack({"t": np.ones(5, np.float32)})], [2.0])
    assert rule.total_weight == 2.0
    assert layout.views(rule.finish())["t"].tolist() == [1.0] * 5


@pytest.mark.parametrize("weights", [[], [0.0]])
def test_nothing_to_average_is_an_error(weights: list[float]) -> None:
    layout = Layout.of({"t": np.zeros(5, np.float32)})
    rule = FedAvg(layout)
    rule.fold([layout.allocate()] * len(weights), weights)
    with pytest.raises(ValueError, match="nothing to average"):
        rule.finish()


def test_a_mean_that_left_the_range_of_float64_is_an_error() -> None:
    layout = Layout.of({"t": np.zeros(2), "u": np.zeros(2, np.float32)})
    rule = FedAvg(layout)
    rule.fold([layout.pack({"t": np.full(2, 1e307), "u": np.ones(2, np.float32)})], [1e6])
    with pytest.raises(ValueError, match="float64"):
        rule.finish()


# ---- finite values


@FAST
@given(st.sampled_from(FLOATS), sizes, st.sampled_from([np.nan, np.inf, -np.inf]), seeds)
def test_every_non_finite_value_is_counted(kernels: ModuleType, dtype: str, size: int, bad: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(size).astype(dtype)
    assert kernels.count_not_finite(values) == 0
    places = rng.choice(size, int(rng.integers(1, min(size, 50) + 1)), replace=False)
    values[places] = bad
    assert kernels.count_not_finite(values) == len(places)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_integers_are_always_finite(kernels: ModuleType, dtype: str) -> None:
    assert kernels.count_not_finite(np.ones(10, dtype)) == 0

"""Order statistics and inner products of many models, against NumPy."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout
from metisfl_controller.aggregation.gathered import Gathered
from metisfl_controller.aggregation.kernels import kinds, products
from metisfl_controller.aggregation.kernels.folding import Source
from metisfl_controller.aggregation.kernels.networks import sorting_network
from metisfl_controller.aggregation.kernels.products import PIECE, add_products
from metisfl_controller.aggregation.kernels.ranks import sum_around_median, sum_ranks
from metisfl_controller.aggregation.rules.distances import squared_distances
from tests.unit.controller.rules import oracles
from tests.unit.controller.rules.samples import FLOATS, dtype_of

FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = (*FLOATS, "int8", "int16", "int32", "int64", "uint8", "bool")

pytestmark = pytest.mark.usefixtures("kernels")

counts = st.integers(1, 60)
sizes = st.sampled_from([0, 1, 63, 65, 1000, 5000])
seeds = st.integers(0, 2**32 - 1)


def floats(rng: np.random.Generator, dtype: str, size: int, *, ties: bool = False) -> np.ndarray:
    values = rng.integers(-2, 3, size) / 2 if ties else rng.standard_normal(size)
    return values.astype(dtype_of(dtype))


def rows(rng: np.random.Generator, dtype: str, count: int, size: int, ties: bool) -> list[np.ndarray]:
    if dtype in FLOATS:
        return [floats(rng, dtype, size, ties=ties) for _ in range(count)]
    if dtype == "bool":
        return [rng.random(size) < 0.5 for _ in range(count)]
    bounds = np.iinfo(dtype)
    low, high = (0, 3) if ties else (max(bounds.min, -(2**52)), min(bounds.max, 2**52))
    return [rng.integers(low, high, size, dtype, endpoint=True) for _ in range(count)]


def source_of(models: list[np.ndarray]) -> Source:
    """The models' memory must outlive it."""
    return Source.of(kinds.kind_of_dtype(models[0].dtype), [(model,) for model in models], [1.0] * len(models))


@given(st.integers(1, 200), st.data())
@settings(max_examples=60, deadline=None)
def test_the_network_brings_the_wanted_ranks_into_place(count: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, count - 1))
    high = data.draw(st.integers(low + 1, count))
    values = np.random.default_rng(count).integers(0, count, (count, 50))
    expected = np.sort(values, axis=0)
    for smaller, larger in sorting_network(count, low, high):
        pair = values[[smaller, larger]]
        values[smaller], values[larger] = pair.min(axis=0), pair.max(axis=0)
    np.testing.assert_array_equal(values[low:high], expected[low:high])


def test_the_network_sorts_every_sequence_of_zeros_and_ones() -> None:
    """Which proves that it sorts everything (Knuth 5.3.4, theorem Z)."""
    for count in range(1, 13):
        values = (np.arange(1 << count) >> np.arange(count)[:, None]) & 1
        for smaller, larger in sorting_network(count, 0, count):
            pair = values[[smaller, larger]]
            values[smaller], values[larger] = pair.min(axis=0), pair.max(axis=0)
        assert (np.diff(values, axis=0) >= 0).all()


@FAST
@given(st.sampled_from(DTYPES), counts, sizes, st.booleans(), seeds, st.data())
def test_ranks_are_those_of_sorted_columns(
    dtype: str, count: int, size: int, ties: bool, seed: int, data: st.DataObject
) -> None:
    models = rows(np.random.default_rng(seed), dtype, count, size, ties)
    low = data.draw(st.integers(0, count - 1))
    high = data.draw(st.integers(low + 1, count))
    sums = np.full(size, np.nan)
    sum_ranks(source_of(models), 0, size, low, high, sums)
    ordered = np.sort(np.stack(models).astype(np.float64), axis=0)[low:high]
    bound = (high - low) * 2.0**-52 * np.abs(ordered).sum(axis=0)
    assert (np.abs(sums - ordered.sum(axis=0)) <= bound).all()


@FAST
@given(st.sampled_from(FLOATS), counts, st.sampled_from([1, 65, 300]), st.booleans(), seeds, st.data())
def test_values_around_the_median_are_the_closest(
    dtype: str, count: int, size: int, ties: bool, seed: int, data: st.DataObject
) -> None:
    models = rows(np.random.default_rng(seed), dtype, count, size, ties)
    width = data.draw(st.integers(1, count))
    sums = np.full(size, np.nan)
    sum_around_median(source_of(models), 0, size, width, sums)
    expected = width * oracles.mean_around_median(np.stack(models).astype(np.float64), width)
    np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outlier", [-1e30, -1e17, 1e30])
def test_an_outlier_takes_no_digits_of_the_values_around_the_median(outlier: float) -> None:
    models = [np.full(100, value, np.float32) for value in (0.5, outlier, 0.25, 0.75, 1.0, -0.5, 0.125)]
    sums = np.empty(100)
    sum_around_median(source_of(models), 0, 100, 3, sums)
    expected = 3 * oracles.mean_around_median(np.stack(models).astype(np.float64), 3)
    np.testing.assert_allclose(sums, expected, rtol=1e-12)


@FAST
@given(st.sampled_from(FLOATS), counts, st.sampled_from([0, 1, 65, 5000, 2 * PIECE + 7]), st.booleans(), seeds)
def test_inner_products_are_exact_in_float64(dtype: str, count: int, size: int, with_base: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = rows(rng, dtype, count, size, False)
    base = floats(rng, dtype, size) if with_base else None
    got = np.ones((count, count))
    add_products(got, source_of(models), 0, size, base=base)
    updates = np.stack(models).astype(np.float64)
    if base is not None:
        updates -= base.astype(np.float64)
    expected = updates @ updates.T
    norms = np.sqrt(np.diagonal(expected))
    assert (np.abs(got - 1 - expected) <= 1e-12 * norms[:, None] * norms[None, :] + 1e-12).all()
    np.testing.assert_array_equal(got, got.T)


@pytest.mark.parametrize("codec", [codec for codec in Codec if not codec.lossless])
def test_kernels_read_uploads_in_their_encoded_form(codec: Codec) -> None:
    rng = np.random.default_rng(5)
    encoding = Encoding(Layout.of({"t": np.zeros(5001, np.float32)}), codec, 0.1, updates=True)
    contents = [
        encoding.encode(encoding.layout.pack({"t": rng.standard_normal(5001).astype(np.float32)})) for _ in range(9)
    ]
    (segment,) = encoding.segments
    decoded = np.stack([segment.segment.of(encoding.decode(content)) for content in contents]).astype(np.float64)
    source = Source.of(kinds.kind_of(segment), [kinds.planes(segment, content) for content in contents], [1.0] * 9)
    sums = np.empty(5001)
    sum_ranks(source, 0, 5001, 4, 5, sums)
    np.testing.assert_array_equal(sums, np.median(decoded, axis=0))
    products = np.zeros((9, 9))
    add_products(products, source, 0, 5001)
    np.testing.assert_allclose(products, decoded @ decoded.T, rtol=1e-12, atol=1e-9)


def test_a_part_of_the_elements_can_be_asked_for() -> None:
    models = rows(np.random.default_rng(1), "float32", 7, 1000, False)
    sums = np.empty(300)
    sum_ranks(source_of(models), 640, 940, 3, 4, sums)
    np.testing.assert_array_equal(sums, np.median(np.stack(models)[:, 640:940], axis=0))


def test_inner_products_do_not_depend_on_threads_or_calls() -> None:
    import numba

    size = 5 * PIECE + 99
    models = rows(np.random.default_rng(2), "float32", 6, size, False)
    whole, alone, in_parts = (np.zeros((6, 6)) for _ in range(3))
    add_products(whole, source_of(models), 0, size)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        add_products(alone, source_of(models), 0, size)
    finally:
        numba.set_num_threads(threads)
    for start in range(0, size, 2 * PIECE):
        add_products(in_parts, source_of(models), start, min(size, start + 2 * PIECE))
    np.testing.assert_array_equal(whole, alone)
    np.testing.assert_array_equal(whole, in_parts)


@pytest.mark.parametrize(("models", "elements"), [(9, 100_000), (300, 40_000), (300, 500_000)])
def test_memory_for_inner_products_is_as_planned(models: int, elements: int) -> None:
    layout = Layout.of({"w": np.zeros(elements, np.float32)})
    zeros = layout.allocate()
    gathered = Gathered(Encoding(layout, Codec.FLOAT32), [zeros] * models, zeros)
    tracemalloc.start()
    try:
        squared_distances(gathered.inner_products())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    planned = products.nbytes(models, elements)
    assert planned / 3 < peak < planned + (1 << 18)

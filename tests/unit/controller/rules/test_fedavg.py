"""FedAvg and its kernels against plain float64 NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.segments import Form
from metisfl_controller.aggregation import mapped
from metisfl_controller.aggregation.mapped import mapped_zeros
from metisfl_controller.aggregation.rule import Staged
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.mean import MeanOptions

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
LOSSY = tuple(codec for codec in Codec if not codec.lossless)
FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("kernels")

counts = st.integers(1, 60)
# Nothing, one element, a few, around the scales' 64 and the kernels' blocks of 16384, and enough for two threads.
sizes = st.sampled_from([0, 1, 3, 63, 65, 1000, 16_383, 16_384, 16_385, 100_001])
seeds = st.integers(0, 2**32 - 1)


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def random_models(rng: np.random.Generator, dtype: str, count: int, size: int) -> list[np.ndarray]:
    kind = dtype_of(dtype)
    if kind == np.bool_:
        return [rng.random(size) < 0.5 for _ in range(count)]
    if dtype in FLOATS:
        return [(rng.standard_normal(size) * 10.0 ** rng.integers(-3, 4)).astype(kind) for _ in range(count)]
    # Sums of products with weights stay below 2**53, so float64 is exact and so is the oracle.
    bound = min(np.iinfo(kind).max, 2**30)
    return [rng.integers(max(-bound, np.iinfo(kind).min), bound, size, dtype=kind) for _ in range(count)]


def exact_mean(models: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Σ w·m / Σ w in float64; the order of summing is the only freedom the kernels have."""
    stacked = np.stack(models).astype(np.float64)
    return np.average(stacked, axis=0, weights=np.array(weights, np.float64))


def summation_bound(models: Sequence[np.ndarray]) -> np.ndarray:
    """What the docstrings of fold and FedAvg allow, twice, as the oracle rounds as well."""
    magnitude = np.abs(np.stack(models).astype(np.float64)).max(axis=0)
    return magnitude * 2 * (len(models) + 2) * 2.0**-53


def staged(encoding: Encoding, model: np.ndarray, weight: float) -> Staged:
    return Staged(encoding.encode(encoding.layout.pack({"t": model})), weight)


def average(models: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    encoding = Encoding(Layout.of({"t": models[0]}), Codec.FLOAT32)
    rule = FedAvg(encoding)
    rule.fold([staged(encoding, model, weight) for model, weight in zip(models, weights, strict=True)])
    return encoding.layout.views(rule.finish())["t"]


# ---- dtypes


@FAST
@given(st.sampled_from(FLOATS), counts, sizes, seeds)
def test_the_mean_of_floats_is_rounded_once(dtype: str, count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = random_models(rng, dtype, count, size)
    weights = [float(w) for w in rng.integers(1, 10_000, count)]
    got, expected = average(models, weights), exact_mean(models, weights)
    assert got.dtype == dtype_of(dtype)
    # The nearest to some number within the bound: no further from the exact mean than its own nearest is, but for that.
    bound = summation_bound(models)
    nearest = np.abs(expected.astype(got.dtype).astype(np.float64) - expected)
    assert (np.abs(got.astype(np.float64) - expected) <= nearest + 2 * bound).all()


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
@given(counts, seeds)
def test_integers_beyond_2_to_the_53_keep_to_the_stated_bound(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bounds = np.iinfo(np.int64)
    models = [rng.integers(bounds.min, bounds.max, 50, dtype=np.int64, endpoint=True) for _ in range(count)]
    weights = [int(w) for w in rng.integers(1, 10_000, count)]
    got = average(models, [float(w) for w in weights])
    for i in range(50):
        # Python's integers are exact; everything is multiplied by Σ w.
        total = sum(weights)
        exact = sum(w * int(m[i]) for w, m in zip(weights, models, strict=True))
        largest = max(abs(int(m[i])) for m in models)
        allowed = (count + 3) * largest // 2**53 + 1
        assert abs(int(got[i]) * total - exact) <= allowed * total


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_at_the_ends_of_their_range_stay_there(dtype: str) -> None:
    ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    np.testing.assert_array_equal(average([ends] * 3, [1.0, 3.0, 7.0]), ends)


@FAST
@given(counts, sizes, seeds)
def test_booleans_follow_the_weighted_majority(count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = random_models(rng, "bool", count, size)
    weights = [float(w) for w in rng.integers(1, 10, count)]
    np.testing.assert_array_equal(average(models, weights), exact_mean(models, weights) > 0.5)


def test_any_byte_but_0_is_one_vote() -> None:
    layout = Layout.of({"t": np.zeros(3, np.bool_)})
    rule = FedAvg(Encoding(layout, Codec.FLOAT32))
    rule.fold([Staged(np.array(bytes_, np.uint8), 1.0) for bytes_ in ([0, 255, 2], [0, 0, 1], [0, 0, 0])])
    assert rule.finish().tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_model_comes_back_unchanged(dtype: str) -> None:
    # Every value of a 16-bit float that is finite, and as many others.
    bits = np.arange(1 << 16, dtype=np.uint16).view(dtype_of(dtype) if dtype.endswith("16") else np.float16)
    with np.errstate(invalid="ignore"):
        model = bits[np.isfinite(bits)].astype(dtype_of(dtype))
    np.testing.assert_array_equal(average([model], [3.0]), model)


def test_weights_of_zero_and_subnormals() -> None:
    tiny = np.full(5, 1e-45, np.float32)
    np.testing.assert_array_equal(average([tiny, np.ones(5, np.float32)], [2.0, 0.0]), tiny)


# ---- codecs


@FAST
@given(st.sampled_from((Codec.FLOAT32, *LOSSY)), st.sampled_from(FLOATS), st.integers(1, 20), sizes, seeds)
def test_encoded_updates_are_added_as_if_decoded(codec: Codec, dtype: str, count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = [(rng.standard_normal(size)).astype(dtype_of(dtype)) for _ in range(count + 1)]
    base = models.pop()
    encoding = Encoding(Layout.of({"t": base}), codec, 0.1, updates=True)
    weights = [float(w) for w in rng.integers(1, 10_000, count)]
    uploads = [staged(encoding, model, weight) for model, weight in zip(models, weights, strict=True)]
    rule = FedAvg(encoding)
    rule.fold(uploads)
    whole = encoding.layout.pack({"t": base})
    got = encoding.layout.views(rule.finish(whole))["t"]
    wide = Encoding(Layout.of({"t": base.astype(np.float32)}), codec, 0.1)
    narrowed = encoding.segments[0].form is not Form.RAW
    decoded = [
        wide.layout.views(wide.decode(upload.content))["t"].astype(np.float64) if narrowed else model.astype(np.float64)
        for upload, model in zip(uploads, models, strict=True)
    ]
    mean = exact_mean(decoded, weights) + base.astype(np.float64)
    bound = summation_bound([*decoded, base.astype(np.float64)])
    nearest = np.abs(mean.astype(got.dtype).astype(np.float64) - mean)
    assert (np.abs(got.astype(np.float64) - mean) <= nearest + 2 * bound).all()


@pytest.mark.parametrize("codec", [Codec.FLOAT32, Codec.BFLOAT16])
def test_only_trainable_floats_are_differences(codec: Codec) -> None:
    def model(value: float) -> dict[str, np.ndarray]:
        return {"w": np.full(3, value, np.float32), "steps": np.array(int(value)), "running": np.full(2, value, "f4")}

    layout = Layout.of(model(0), frozen=["running"])
    encoding = Encoding(layout, codec, updates=True)
    rule = FedAvg(encoding)
    rule.fold([Staged(encoding.encode(layout.pack(model(v))), 1.0) for v in (1, 3)])
    got = layout.views(rule.finish(layout.pack(model(100))))
    assert {k: v.tolist() for k, v in got.items()} == {"w": [102.0] * 3, "steps": 2, "running": [2.0] * 2}


def test_updates_without_their_base_are_an_error() -> None:
    encoding = Encoding(Layout.of({"t": np.zeros(5, np.float32)}), Codec.INT8, updates=True)
    rule = FedAvg(encoding)
    rule.fold([staged(encoding, np.ones(5, np.float32), 1.0)])
    with pytest.raises(ValueError, match="the model that they were made from"):
        rule.finish()


def test_an_update_that_leaves_the_range_of_the_dtype_is_an_error() -> None:
    largest = np.full(5, np.finfo(np.float32).max)
    encoding = Encoding(Layout.of({"t": largest}), Codec.BFLOAT16, updates=True)
    rule = FedAvg(encoding)
    rule.fold([staged(encoding, np.full(5, 1e38, np.float32), 1.0)])
    with pytest.raises(ValueError, match="5 values of the new model are beyond the range of their dtype float32"):
        rule.finish(encoding.layout.pack({"t": largest}))


# ---- scaled updates


def test_scaled_whole_models_without_their_base_are_an_error() -> None:
    encoding = Encoding(Layout.of({"t": np.zeros(5, np.float32)}), Codec.FLOAT32)
    rule = FedAvg(encoding)
    with pytest.raises(ValueError, match="the model that they were made from"):
        rule.finish(None, [Staged(encoding.layout.allocate(), 1.0, scale=0.5)])


# ---- batches, rounds, memory


@FAST
@given(st.sampled_from((Codec.FLOAT32, *LOSSY)), st.integers(1, 30), st.sampled_from([70, 100_001]), st.data())
def test_the_batches_do_not_change_a_bit(codec: Codec, count: int, size: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(count)
    encoding = Encoding(Layout.of({"t": np.zeros(size, np.float32)}), codec, 0.1, updates=True)
    uploads = [
        staged(encoding, rng.standard_normal(size).astype(np.float32), float(rng.integers(1, 2**40)))
        for _ in range(count)
    ]
    base = encoding.layout.pack({"t": rng.standard_normal(size).astype(np.float32)})
    one_by_one, in_batches = FedAvg(encoding), FedAvg(encoding)
    for upload in uploads:
        one_by_one.fold([upload])
    left = uploads
    while len(left) > 1 and data.draw(st.booleans()):
        cut = data.draw(st.integers(1, len(left)))
        in_batches.fold(left[:cut])
        left = left[cut:]
    np.testing.assert_array_equal(one_by_one.finish(base), in_batches.finish(base, left))


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
    rule = FedAvg(Encoding(layout, Codec.FLOAT32))
    weights = {1: 1.0, 2: 1.0, 4: 2.0}
    rule.fold([Staged(layout.pack(model(k)), weight) for k, weight in weights.items()])
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
    encoding = Encoding(Layout.of({"t": np.zeros(5, np.float32)}), Codec.FLOAT32)
    rule = FedAvg(encoding)
    rule.fold([staged(encoding, np.full(5, 100, np.float32), 9.0)])
    rule.reset()
    rule.fold([staged(encoding, np.ones(5, np.float32), 2.0)])
    assert rule.total_weight == 2.0
    assert encoding.layout.views(rule.finish())["t"].tolist() == [1.0] * 5


@pytest.mark.parametrize("weights", [[], [0.0]])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_nothing_to_average_is_an_error(weights: list[float], at_the_end: bool) -> None:
    encoding = Encoding(Layout.of({"t": np.zeros(5, np.float32)}), Codec.FLOAT32)
    rule = FedAvg(encoding)
    uploads = [Staged(encoding.layout.allocate(), weight) for weight in weights]
    if not at_the_end:
        rule.fold(uploads)
    with pytest.raises(ValueError, match="nothing to average"):
        rule.finish(None, uploads if at_the_end else [])


def test_a_mean_that_left_the_range_of_float64_is_an_error() -> None:
    layout = Layout.of({"t": np.zeros(2), "u": np.zeros(2, np.float32)})
    rule = FedAvg(Encoding(layout, Codec.FLOAT32))
    rule.fold([Staged(layout.pack({"t": np.full(2, 1e307), "u": np.ones(2, np.float32)}), 1e6)])
    with pytest.raises(ValueError, match="float64"):
        rule.finish()


def test_buffers_that_are_too_short_are_refused_before_a_kernel_reads_beyond_them() -> None:
    encoding = Encoding(Layout.of({"t": np.zeros(50, np.float32)}), Codec.INT8, updates=True)
    short = Staged(np.zeros(encoding.nbytes - 1, np.uint8), 1.0)
    whole = Staged(np.zeros(encoding.nbytes, np.uint8), 1.0)
    rule = FedAvg(encoding)
    with pytest.raises(ValueError, match="an upload of 67 bytes, and 68 are needed"):
        rule.fold([short])
    with pytest.raises(ValueError, match="an upload of 67 bytes"):
        rule.finish(encoding.layout.allocate(), [short])
    with pytest.raises(ValueError, match="a base of 199 bytes, and 200 are needed"):
        rule.finish(np.zeros(199, np.uint8), [whole])


@pytest.mark.parametrize("codec", Codec)
def test_mapped_memory_gives_the_same_bits_tile_by_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Codec
) -> None:
    monkeypatch.setattr(mapped, "_TILE", 1 << 12)
    rng = np.random.default_rng(3)
    encoding = Encoding(
        Layout.of({"t": np.zeros(50_001, np.float32), "n": np.zeros(9001, np.int16)}), codec, 0.1, updates=True
    )

    def in_file(content: Buffer) -> Buffer:
        copy = mapped_zeros(tmp_path, content.size)
        copy[:] = content
        return copy

    def model() -> Buffer:
        values = {"t": rng.standard_normal(50_001).astype(np.float32), "n": rng.integers(-99, 99, 9001, np.int16)}
        return encoding.layout.pack(values)

    base, uploads = model(), [Staged(encoding.encode(model()), float(k)) for k in range(1, 8)]
    in_memory = FedAvg(encoding)
    in_memory.fold(uploads[:5])
    on_disk = FedAvg(encoding, MeanOptions(allocate=lambda nbytes: mapped_zeros(tmp_path, nbytes)))
    on_disk.fold([Staged(in_file(upload.content), upload.weight) for upload in uploads[:5]])
    last = [Staged(in_file(upload.content), upload.weight) for upload in uploads[5:]]
    np.testing.assert_array_equal(on_disk.finish(in_file(base), last), in_memory.finish(base, uploads[5:]))

"""The controller's codec kernels against the NumPy reference, the search for flaws, and the code that is generated."""

from __future__ import annotations

import os
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout
from metisfl_controller.aggregation.kernels import adders, conversions, flaws
from metisfl_controller.kernel_cache import BASELINE

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))
DENSE = (Codec.FLOAT32, Codec.BFLOAT16, Codec.FLOAT16, Codec.INT8)
FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("kernels")

sizes = st.sampled_from([0, 1, 63, 64, 65, 4095, 4097, 200_001])
seeds = st.integers(0, 2**32 - 1)


def any_floats(rng: np.random.Generator, dtype: np.dtype, size: int) -> np.ndarray:
    """Every bit pattern of a dtype is as likely as any other, but for NaN and infinity, which become 1."""
    values = rng.integers(0, 256, size * dtype.itemsize, np.uint8).view(dtype)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values), values, np.ones((), dtype))


def special_singles() -> np.ndarray:
    """Around every value of a 16-bit float: the value itself, ties and their neighbours, infinity, NaN."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        values = np.concatenate([halves.view(np.float16).astype(np.float32), halves.view(BFLOAT16).astype(np.float32)])
    bits = values.view(np.uint32)
    offsets = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1FFF], np.uint32)
    return (bits[:, None] + offsets).reshape(-1).view(np.float32)


def same(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the bit, except that one NaN is as good as another."""
    assert got.dtype == expected.dtype
    unsigned = np.dtype(f"u{got.itemsize}")
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got[~nan].view(unsigned), expected[~nan].view(unsigned))


@FAST
@given(st.sampled_from(DENSE), st.sampled_from(FLOATS), sizes, seeds)
def test_kernels_encode_and_decode_like_the_reference(codec: Codec, dtype: np.dtype, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = {"t": any_floats(rng, dtype, size), "n": rng.integers(0, 9, 70), "flag": np.ones(3, np.bool_)}
    layout = Layout.of(arrays)
    encoding, model = Encoding(layout, codec), layout.pack(arrays)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = encoding.encode(model)
        content = conversions.encode(encoding, model)
        np.testing.assert_array_equal(content, expected)
        decoded, reference = conversions.decode(encoding, content), encoding.decode(content)
    for name, view in layout.views(decoded).items():
        same(view, layout.views(reference)[name])


@pytest.mark.parametrize("codec", [Codec.BFLOAT16, Codec.FLOAT16])
def test_rounding_to_16_bits_is_right_at_every_border(codec: Codec) -> None:
    values = special_singles()
    layout = Layout.of({"t": values})
    encoding, model = Encoding(layout, codec), layout.pack({"t": values})
    dtype = BFLOAT16 if codec is Codec.BFLOAT16 else np.dtype(np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        got, expected = conversions.encode(encoding, model), encoding.encode(model)
        same(encoding.segments[0].halves(got).view(dtype), encoding.segments[0].halves(expected).view(dtype))
        decoded = layout.views(conversions.decode(encoding, expected))["t"]
        same(decoded, layout.views(encoding.decode(expected))["t"])


@pytest.mark.parametrize(
    "block",
    [
        [0.0] * 64,
        [np.nan] + [1.0] * 63,
        [np.inf] * 2,
        [3.4028235e38, -3.4028235e38],
        [1e-45],
        [127 * 2.0**-126, 1e-38],
        [0.5, 1.5, -2.5, 127.0],
    ],
)
def test_scales_at_their_limits(block: list[float]) -> None:
    layout = Layout.of({"t": np.array(block, np.float32)})
    encoding, model = Encoding(layout, Codec.INT8), layout.pack({"t": np.array(block, np.float32)})
    got, expected = conversions.encode(encoding, model), encoding.encode(model)
    (segment,) = encoding.segments
    np.testing.assert_array_equal(segment.codes(got), segment.codes(expected))
    same(segment.scales(got), segment.scales(expected))


def test_no_model_travels_in_topk() -> None:
    layout = Layout.of({"t": np.ones(5, np.float32)})
    with pytest.raises(ValueError, match="TopK"):
        conversions.encode(Encoding(layout, Codec.TOPK), layout.allocate())


def test_buffers_that_are_too_short_are_refused() -> None:
    layout = Layout.of({"t": np.ones(50, np.float32)})
    encoding = Encoding(layout, Codec.BFLOAT16)
    model, section = layout.allocate(), np.zeros(encoding.nbytes, np.uint8)
    for call in (
        lambda: conversions.encode(encoding, model[:-1], section),
        lambda: conversions.encode(encoding, model, section[:-1]),
        lambda: conversions.decode(encoding, section[:-1], model),
        lambda: conversions.decode(encoding, section, model[:-1]),
        lambda: flaws.flaw(encoding, section[:-1]),
    ):
        with pytest.raises(ValueError, match="are needed"):
            call()


# ---- generated code


@pytest.mark.skipif(os.environ.get("NUMBA_CPU_NAME") != BASELINE, reason="the processor lacks AVX2 and FMA")
@pytest.mark.parametrize(
    ("loop", "conversion"),
    [
        (adders._add_float32, r"vcvtps2pd\s.*%ymm"),
        (adders._add_float16, r"vcvtps2pd\s.*%ymm"),
        (adders._add_bfloat16, r"vcvtps2pd\s.*%ymm"),
        (adders._add_int8, r"vcvtdq2pd\s.*%ymm"),
    ],
)
def test_inner_loops_take_four_elements_at_a_time(loop: Any, conversion: str) -> None:
    loop(np.zeros(0), np.zeros(0, np.int64), np.zeros(0), 0)
    (code,) = loop.inspect_asm().values()
    assert re.search(conversion, code)
    assert re.search(r"vfmadd\d+pd\s.*%ymm", code)


# ---- flaws


@FAST
@given(st.sampled_from(Codec), st.sampled_from(FLOATS), st.sampled_from([np.nan, np.inf, -np.inf]), seeds)
def test_one_value_that_is_not_finite_is_found_and_named(codec: Codec, dtype: np.dtype, bad: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.choice([1, 65, 70_000, 300_000]))
    arrays = {"before": np.ones(10, dtype), "t": rng.standard_normal(size).astype(dtype), "n": np.arange(4)}
    layout = Layout.of(arrays)
    encoding = Encoding(layout, codec, 0.5)
    assert flaws.flaw(encoding, encoding.encode(layout.pack(arrays))) is None
    arrays["t"][rng.integers(size)] = bad
    found = flaws.flaw(encoding, encoding.encode(layout.pack(arrays)))
    # A block of Int8 may begin in the tensor before.
    assert found in [f"tensor '{name}' holds NaN or infinity" for name in ("t", *(["before"] * (codec is Codec.INT8)))]


@FAST
@given(st.sampled_from(["int8", "int16", "int32", "int64", "uint8", "bool"]), seeds)
def test_every_integer_is_fine(dtype: str, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, 800, np.uint8)
    layout = Layout.of({"t": np.zeros(800 // np.dtype(dtype).itemsize, dtype)})
    assert flaws.flaw(Encoding(layout, Codec.FLOAT32), values) is None


@pytest.mark.parametrize("position", [0, 1, 65_535, 65_536, 65_537, 99_999])
@pytest.mark.parametrize("index", ["the one before", "below the one before", "out of range"])
def test_indices_of_topk_must_rise_and_stay_in_range(position: int, index: str) -> None:
    layout = Layout.of({"t": np.arange(200_000, dtype=np.float32)})
    encoding = Encoding(layout, Codec.TOPK, 0.5)
    content = encoding.encode(layout.pack({"t": np.arange(200_000, dtype=np.float32)}))
    assert flaws.flaw(encoding, content) is None
    indices = encoding.segments[0].indices(content)
    if position == 0 and index != "out of range":
        indices[0] = indices[1] + (index == "below the one before")
    elif index == "out of range":
        indices[position] = 200_000
    else:
        indices[position] = indices[position - 1] - (index == "below the one before")
    assert "indices of TopK" in str(flaws.flaw(encoding, content))


@pytest.mark.parametrize("scale", [3e38, -3e38, np.inf, np.nan])
def test_a_scale_beyond_float32_is_a_flaw(scale: float) -> None:
    layout = Layout.of({"t": np.ones(100, np.float32)})
    encoding = Encoding(layout, Codec.INT8)
    content = encoding.encode(layout.pack({"t": np.ones(100, np.float32)}))
    encoding.segments[0].scales(content)[1] = scale
    assert flaws.flaw(encoding, content) is not None

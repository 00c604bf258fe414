"""Codecs: each holds what its docstring says of it, for every value a tensor may have."""

from __future__ import annotations

import math
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metisfl.proto.v1 import model_pb2
from metisfl.wire.codecs import Codec, CodecError, Encoding
from metisfl.wire.layout import Layout
from metisfl.wire.narrowing import BLOCK
from metisfl.wire.segments import Form

LOSSY = [codec for codec in Codec if not codec.lossless]
FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT32_TINY = float(np.finfo(np.float32).tiny)


def single(values: Any, trainable: bool = True) -> tuple[Layout, Any]:
    """A layout with one tensor, and a model of it."""
    arrays = {"w": np.asarray(values)}
    layout = Layout.of(arrays, frozen=() if trainable else ("w",))
    return layout, layout.pack(arrays)


def travelled(values: Any, codec: Codec, **options: Any) -> Any:
    """One tensor, encoded and decoded."""
    layout, model = single(values)
    encoding = Encoding(layout, codec, **options)
    return layout.views(encoding.decode(encoding.encode(model)))["w"]


def blockwise_largest(values: Any) -> Any:
    """max|x| of each element's block."""
    flat = np.abs(np.asarray(values, np.float64).reshape(-1))
    largest = [flat[start : start + BLOCK].max() for start in range(0, flat.size, BLOCK)]
    return np.repeat(largest, BLOCK)[: flat.size]


SIZES = st.sampled_from([1, 2, 63, 64, 65, 128, 200])
ALL_FINITE = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-1.0, 1.0, width=32),
    st.floats(-(2.0**-126), 2.0**-126, width=32, allow_subnormal=True),
    st.sampled_from([0.0, -0.0, 1.0, FLOAT32_MAX, -FLOAT32_MAX, FLOAT32_TINY, 2.0**-149, 127.0, 0.5, 2.5]),
)
FLOATS = SIZES.flatmap(lambda n: hnp.arrays(np.float32, n, elements=ALL_FINITE))
BFLOAT16_MAX = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)


@given(FLOATS)
def test_bfloat16_is_within_its_bound_and_nearest(values: Any) -> None:
    values = values[np.abs(values) <= BFLOAT16_MAX]
    got = travelled(values, Codec.BFLOAT16).astype(np.float64)
    wide = values.astype(np.float64)
    assert (np.abs(got - wide) <= np.maximum(2.0**-8 * np.abs(wide), 2.0**-134)).all()
    # No neighbour of the chosen value is nearer: an oracle that knows nothing of how it was rounded.
    halves = got.astype(np.float32).view(np.uint32) >> 16
    for neighbour in (halves + 1, halves - 1):
        other = (neighbour << 16).view(np.float32)
        finite = np.isfinite(other)
        assert not (np.abs(other[finite] - wide[finite]) < np.abs(got - wide)[finite]).any()


@given(FLOATS)
def test_float16_is_within_its_bound_or_visibly_infinite(values: Any) -> None:
    got = travelled(values, Codec.FLOAT16).astype(np.float64)
    wide = values.astype(np.float64)
    inside = np.abs(wide) < 65520
    bound = np.where(np.abs(wide) >= 2.0**-14, 2.0**-11 * np.abs(wide), 2.0**-25)
    assert (np.abs(got - wide)[inside] <= bound[inside]).all()
    assert (np.isinf(got[~inside]) & (np.sign(got) == np.sign(wide))[~inside]).all()


@given(FLOATS)
@example(np.array([FLOAT32_MAX, -FLOAT32_MAX], np.float32))
@example(np.array([190 * 2.0**-149, 2.0**-149], np.float32))
@example(np.linspace(-0.5, 127.5, 128, dtype=np.float32))
def test_int8_is_within_half_a_scale(values: Any) -> None:
    got = travelled(values, Codec.INT8).astype(np.float64)
    largest = blockwise_largest(values)
    scale = largest / 127
    error = np.abs(got - values.astype(np.float64))
    vanishing = largest < 127 * FLOAT32_TINY
    assert (error <= scale * (0.5 + 2.0**-16))[~vanishing].all()
    # Whether a block at the very border becomes zero is a matter of one rounding.
    assert ((got == 0) | (error <= scale))[vanishing].all()
    assert np.isfinite(got).all()


def test_int8_rounds_ties_to_even() -> None:
    values = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    assert travelled(values, Codec.INT8).tolist() == [127, 0, 2, 2, 0, -2]


@given(FLOATS, st.floats(0.001, 1.0))
def test_topk_keeps_the_largest_exactly_and_nothing_else(values: Any, fraction: float) -> None:
    layout, model = single(values)
    encoding = Encoding(layout, Codec.TOPK, fraction)
    content = encoding.encode(model)
    (encoded,) = encoding.segments
    assert encoded.kept == min(values.size, max(1, round(fraction * values.size)))
    # A stable sort by falling magnitude: the first of equal magnitudes come first.
    expected = np.sort(np.argsort(-np.abs(values), kind="stable")[: encoded.kept])
    assert encoded.indices(content).tolist() == expected.tolist()
    assert encoded.values(content).tobytes() == values[expected].tobytes()
    dense = np.zeros_like(values)
    dense[expected] = values[expected]
    assert layout.views(encoding.decode(content))["w"].tobytes() == dense.tobytes()
    assert encoding.flaw(content) is None


@pytest.mark.parametrize("codec", LOSSY)
@given(data=st.data())
def test_of_several_tiles_the_same_holds_as_of_one(codec: Codec, data: st.DataObject) -> None:
    """Tiles are an affair of memory: the same values in one tensor or behind 70,000 others are encoded alike."""
    values = data.draw(hnp.arrays(np.float32, 200, elements=st.floats(-4, 4, width=32)))
    padding = np.zeros(70_016, np.float32)
    alone = travelled(values, codec, fraction=1.0)
    behind = travelled(np.concatenate((padding, values)), codec, fraction=1.0)
    assert behind[padding.size :].tobytes() == alone.tobytes()
    assert not behind[: padding.size].any()


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (64,), (7, 11)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_shape_and_float_dtype(codec: Codec, shape: tuple[int, ...], dtype: str) -> None:
    size = math.prod(shape)
    values = (np.arange(size, dtype=np.float32).reshape(shape) / max(1, size) - 0.25).astype(
        ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    )
    got = travelled(values, codec, fraction=1.0)
    assert (got.dtype, got.shape) == (values.dtype, shape)
    error = np.abs(got.astype(np.float64) - values.astype(np.float64)).max(initial=0)
    narrow = 2.0**-8 if dtype == "bfloat16" else 0.0
    bounds = {Codec.BFLOAT16: 2.0**-8, Codec.FLOAT16: 2.0**-11, Codec.INT8: 0.75 / 127 + narrow, Codec.TOPK: 2.0**-24}
    assert error <= bounds.get(codec, 0.0)


@given(FLOATS, FLOATS, st.sampled_from(["float16", "float32", "float64", "bfloat16"]))
def test_an_update_in_float32_is_the_difference_in_the_tensors_own_dtype(local: Any, base: Any, dtype: str) -> None:
    own = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    size = min(local.size, base.size)
    with np.errstate(over="ignore"):
        arrays = {"w": np.clip(local[:size], -3e4, 3e4).astype(own), "steps": np.arange(3)}
        start = {"w": np.clip(base[:size], -3e4, 3e4).astype(own), "steps": np.zeros(3, int)}
    layout = Layout.of(arrays)
    encoding = Encoding(layout, Codec.FLOAT32)
    model = layout.pack(arrays)
    got = layout.views(encoding.encode(model, base=layout.pack(start)))
    wide = np.float64 if dtype == "float64" else np.float32
    with np.errstate(over="ignore"):
        expected = (arrays["w"].astype(wide) - start["w"].astype(wide)).astype(own)
    assert got["w"].tobytes() == expected.tobytes()
    assert got["steps"].tolist() == [0, 1, 2]
    assert encoding.encode(model) is model


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_visible_and_names_its_tensor(codec: Codec, bad: float) -> None:
    arrays = {"fine": np.ones(70, np.float32), "bad": np.array([1, 2, bad, 4], np.float32)}
    layout = Layout.of(arrays)
    encoding = Encoding(layout, codec, 0.5)
    # A block of Int8 that two tensors share is named by its first element.
    named = "fine" if codec is Codec.INT8 else "bad"
    assert encoding.flaw(encoding.encode(layout.pack(arrays))) == f"tensor '{named}' holds NaN or infinity"
    assert encoding.flaw(encoding.encode(layout.pack({**arrays, "bad": np.zeros(4, np.float32)}))) is None


@pytest.mark.parametrize(
    ("codec", "value"),
    [(Codec.FLOAT16, 65520.0), (Codec.BFLOAT16, FLOAT32_MAX), (Codec.INT8, 1e39), (Codec.TOPK, 1e39)],
)
def test_beyond_the_range_is_a_flaw_and_never_silent(codec: Codec, value: float) -> None:
    layout, model = single(np.array([1.0, -value]))
    encoding = Encoding(layout, codec, 0.5)
    assert encoding.flaw(encoding.encode(model)) == "tensor 'w' holds NaN or infinity"


def test_the_largest_values_inside_the_range_are_no_flaw() -> None:
    for codec, value in ((Codec.FLOAT16, 65519.0), (Codec.BFLOAT16, BFLOAT16_MAX), (Codec.INT8, FLOAT32_MAX)):
        layout, model = single(np.array([value], np.float32))
        encoding = Encoding(layout, codec)
        assert encoding.flaw(encoding.encode(model)) is None


MIXED = {
    "w": np.linspace(-1, 1, 100, dtype=np.float32),
    "steps": np.arange(7),
    "mask": np.array([True, False]),
    "mean": np.linspace(0, 1, 9, dtype=np.float32),
    "half": np.linspace(0, 1, 5).astype(np.float16),
    "wide": np.linspace(0, 1, 65),
}


@pytest.mark.parametrize("codec", list(Codec))
def test_integers_booleans_and_what_is_not_trainable_travel_as_they_are(codec: Codec) -> None:
    layout = Layout.of(MIXED, frozen=("mean",))
    encoding = Encoding(layout, codec, 0.1)
    got = layout.views(encoding.decode(encoding.encode(layout.pack(MIXED), base=layout.pack(MIXED))))
    for name in ("steps", "mask", "mean"):
        assert got[name].tobytes() == MIXED[name].tobytes()
    forms = {form.segment.dtype.name: form.form for form in encoding.segments if form.segment.trainable}
    assert forms["int64"] == forms["bool"] == Form.RAW
    assert (forms["float16"] == Form.RAW) == (codec in (Codec.FLOAT32, Codec.BFLOAT16, Codec.FLOAT16))


@pytest.mark.parametrize("codec", list(Codec))
def test_planes_are_aligned_and_fill_the_section(codec: Codec) -> None:
    encoding = Encoding(Layout.of(MIXED, frozen=("mean",)), codec, 0.1)
    end = 0
    for encoded in encoding.segments:
        assert encoded.offset % 64 == 0
        assert encoded.offset >= end
        end = encoded.offset + encoded.nbytes
    assert encoding.nbytes == end


def test_float32_is_the_models_own_buffer() -> None:
    layout = Layout.of(MIXED)
    encoding, model = Encoding(layout, Codec.FLOAT32), layout.pack(MIXED)
    assert encoding.nbytes == layout.nbytes
    assert encoding.encode(model) is model
    assert encoding.decode(model) is model
    into = np.zeros(layout.nbytes, np.uint8)
    assert encoding.encode(model, into).tobytes() == model.tobytes() == encoding.decode(into, into.copy()).tobytes()


def test_an_update_is_of_the_difference() -> None:
    layout, base = single(np.full(100, 1000, np.float32))
    change = np.linspace(-1, 1, 100, dtype=np.float32)
    _, local = single(np.full(100, 1000, np.float32) + change)
    for codec in (Codec.BFLOAT16, Codec.FLOAT16, Codec.INT8):
        encoding = Encoding(layout, codec)
        update = layout.views(encoding.decode(encoding.encode(local, base=base)))["w"]
        # 1000 + change is itself rounded to 2^-14 or so; the whole value in BFloat16 would be off by up to 2.
        assert np.abs(update - change).max() <= 1 / 127


def test_a_difference_of_16_bit_floats_is_not_rounded_to_16_bits() -> None:
    layout, base = single(np.array([256], ml_dtypes.bfloat16))
    _, local = single(np.array([1.0078125], ml_dtypes.bfloat16))
    encoding = Encoding(layout, Codec.TOPK, 1.0)
    content = encoding.encode(local, base=base)
    assert encoding.segments[0].values(content).tolist() == [1.0078125 - 256]


def test_bytes_of_large_tensors_as_promised() -> None:
    layout, _ = single(np.zeros(100_000, np.float32))
    ratio = {codec: Encoding(layout, codec, 0.01).nbytes / layout.nbytes for codec in Codec}
    assert ratio[Codec.FLOAT32] == 1
    assert ratio[Codec.BFLOAT16] == ratio[Codec.FLOAT16] == 0.5
    assert 0.25 < ratio[Codec.INT8] < 0.27
    assert ratio[Codec.TOPK] == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize(
    "indices", [[5, 5, 6], [7, 6, 8], [0, 1, 300], [2**32 - 1, 0, 1]], ids=["twice", "falling", "outside", "wrapped"]
)
def test_indices_that_no_encoder_writes_are_a_flaw(indices: list[int]) -> None:
    layout, model = single(np.arange(300, dtype=np.float32))
    encoding = Encoding(layout, Codec.TOPK, 0.01)
    content = encoding.encode(model)
    encoding.segments[0].indices(content)[:] = indices
    flaw = encoding.flaw(content)
    assert flaw is not None
    assert "do not rise strictly within 300 elements" in flaw


def test_a_header_says_what_the_encoding_is() -> None:
    layout = Layout.of(MIXED, frozen=("mean",))
    encoding = Encoding(layout, Codec.TOPK, 0.1)
    section = encoding.section("model")
    assert list(section.kept) == [10, 1, 6]
    assert encoding.mismatch(section) is None
    for change, complaint in (
        ({"codec": model_pb2.CODEC_INT8}, r"codec 4 was not agreed on at Join, which was TopK \(5\)"),
        ({"kept": [10]}, "values are kept"),
        ({"encoded_bytes": 1}, "1 bytes are declared, its layout has"),
    ):
        wrong = model_pb2.Section()
        wrong.CopyFrom(section)
        wrong.ClearField("kept")
        wrong.kept.extend(change.get("kept", [10, 1, 6]))
        wrong.codec = change.get("codec", wrong.codec)
        wrong.encoded_bytes = change.get("encoded_bytes", wrong.encoded_bytes)
        assert re.search(complaint, encoding.mismatch(wrong) or "")


def test_impossible_encodings_are_refused() -> None:
    layout, _ = single(np.zeros(4, np.float32))
    for fraction in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(CodecError, match="fraction above 0"):
            Encoding(layout, Codec.TOPK, fraction)
    with pytest.raises(CodecError, match="codec 99 is unknown"):
        Codec.of(99)
    assert [Codec.of(codec.number) for codec in Codec] == list(Codec)

"""Layouts: where tensors lie, what round trips, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metisfl.proto.v1 import model_pb2
from metisfl.wire.layout import Layout, LayoutError, TensorSpec, aligned_zeros
from metisfl.wire.limits import MAX_DIMENSIONS, MAX_MODEL_BYTES, MAX_TENSOR_NAME, MAX_TENSORS

DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
models = st.dictionaries(st.text(min_size=1, max_size=12), arrays, min_size=1, max_size=12)
tensors = st.lists(
    st.builds(
        TensorSpec,
        st.text(min_size=1, max_size=12),
        st.sampled_from(DTYPES),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda tensor: tensor.name,
)


def bits(array: np.ndarray) -> bytes:
    """Content without NaN's inequality to itself."""
    return array.tobytes()


@given(models, st.data())
def test_what_is_packed_comes_back_bit_for_bit(model: dict[str, np.ndarray], data: st.DataObject) -> None:
    frozen = data.draw(st.sets(st.sampled_from(sorted(model))))
    layout = Layout.of(model, frozen)
    views = layout.views(layout.pack(model))
    assert list(views) == list(model)
    for name, array in model.items():
        assert (views[name].dtype, views[name].shape) == (array.dtype, array.shape)
        assert bits(views[name]) == bits(array)
        assert next(t for t in layout.tensors if t.name == name).trainable is (name not in frozen)


@given(tensors)
def test_segments_are_aligned_ordered_and_disjoint(specs: list[TensorSpec]) -> None:
    layout = Layout(tuple(specs))
    kinds = list(dict.fromkeys((t.dtype, t.trainable) for t in specs))
    assert [(s.dtype.name, s.trainable) for s in layout.segments] == kinds
    end = 0
    for segment, (dtype, trainable) in zip(layout.segments, kinds, strict=True):
        assert segment.offset % 64 == 0
        assert end <= segment.offset < end + 64
        end = segment.offset + segment.nbytes
        mine = [t for t in specs if (t.dtype, t.trainable) == (dtype, trainable)]
        assert segment.elements == sum(math.prod(t.shape) for t in mine)
    assert layout.nbytes == end
    assert layout.parameters == sum(math.prod(t.shape) for t in specs)


@given(models)
def test_a_segment_holds_its_tensors_one_after_the_other(model: dict[str, np.ndarray]) -> None:
    layout = Layout.of(model)
    buffer = layout.pack(model)
    for segment in layout.segments:
        expected = b"".join(bits(a) for a in model.values() if a.dtype == segment.dtype)
        assert bits(segment.of(buffer)) == expected


def test_views_write_through() -> None:
    layout = Layout.of({"a": np.zeros(3, np.float32), "s": np.array(1.5)})
    buffer = layout.allocate()
    layout.views(buffer)["a"][1] = 7
    layout.views(buffer)["s"][...] = 2.5
    assert layout.views(buffer)["a"].tolist() == [0, 7, 0]
    assert layout.views(buffer)["s"] == 2.5


@pytest.mark.parametrize("nbytes", [1, 63, 64, 65, 1 << 20, 1 << 21, (3 << 21) + 1])
def test_buffers_start_on_a_cache_line(nbytes: int) -> None:
    buffer = aligned_zeros(nbytes)
    assert buffer.ctypes.data % 64 == 0
    assert (buffer.size, buffer.dtype, buffer.any()) == (nbytes, np.uint8, False)


def test_pack_says_everything_that_does_not_fit() -> None:
    layout = Layout.of({"a": np.zeros(3, np.float32), "b": np.zeros(2), "c": np.zeros(())})
    with pytest.raises(LayoutError) as error:
        layout.pack({"a": np.zeros(3), "b": np.zeros((1, 2)), "d": np.zeros(1)})
    assert str(error.value).split("; ") == [
        "tensor 'a' is float64[3], expected float32[3]",
        "tensor 'b' is float64[1, 2], expected float64[2]",
        "tensor 'c' is missing",
        "tensor 'd' is not part of the model",
    ]


def test_views_want_a_buffer_of_bytes_that_is_large_enough() -> None:
    layout = Layout.of({"a": np.zeros(3, np.float32)})
    for buffer in (np.zeros(11, np.uint8), np.zeros(12, np.int8)):
        with pytest.raises(LayoutError, match="a buffer of 12 bytes is needed"):
            layout.views(buffer)


# ---- digest and difference


@given(tensors, tensors)
def test_digests_are_equal_exactly_when_layouts_are(one: list[TensorSpec], other: list[TensorSpec]) -> None:
    first, second = Layout(tuple(one)), Layout(tuple(other))
    assert (first.digest == second.digest) == (one == other)
    assert (first.difference(second) == []) == (one == other)


@pytest.mark.parametrize(
    "change",
    [
        TensorSpec("b", "float32", (2, 3)),
        TensorSpec("a", "float64", (2, 3)),
        TensorSpec("a", "float32", (3, 2)),
        TensorSpec("a", "float32", (6,)),
        TensorSpec("a", "float32", (2, 3), trainable=False),
    ],
)
def test_every_property_of_a_tensor_is_in_the_digest(change: TensorSpec) -> None:
    rest = TensorSpec("z", "int64", ())
    before, after = Layout((TensorSpec("a", "float32", (2, 3)), rest)), Layout((change, rest))
    assert before.digest != after.digest
    assert before.difference(after)


def test_names_cannot_be_made_to_collide_in_the_digest() -> None:
    crafted = TensorSpec("a\tfloat32\t()\tTrue\nb", "float32", ())
    honest = (TensorSpec("a", "float32", ()), TensorSpec("b", "float32", ()))
    assert Layout((crafted,)).digest != Layout(honest).digest


def test_difference_names_tensors_and_stays_short() -> None:
    expected = Layout.of({f"t{i}": np.zeros(i, np.float32) for i in range(1, 9)})
    found = Layout.of({"t1": np.zeros(2, np.float32), "x": np.zeros(1)})
    assert expected.difference(found, limit=2) == ["tensor 't2' is missing", "tensor 't3' is missing", "and 7 more"]
    assert expected.difference(found, limit=20)[-2:] == [
        "tensor 'x' is unknown",
        "tensor 't1' is float32[2], expected float32[1]",
    ]


def test_difference_speaks_of_order_and_flags() -> None:
    a, b = TensorSpec("a", "float32", ()), TensorSpec("b", "float32", ())
    assert Layout((a, b)).difference(Layout((b, a))) == ["the tensors are the same, in another order"]
    frozen = TensorSpec("b", "float32", (), trainable=False)
    assert Layout((a, b)).difference(Layout((a, frozen))) == [
        "tensor 'b' is float32[] (not trainable), expected float32[]"
    ]


# ---- on the wire


@given(tensors)
def test_a_layout_survives_the_wire(specs: list[TensorSpec]) -> None:
    layout = Layout(tuple(specs))
    received = Layout.from_proto(model_pb2.Layout.FromString(layout.to_proto().SerializeToString()))
    assert received == layout
    assert received.digest == layout.digest


@given(tensors, tensors)
def test_a_layout_knows_its_own_description(specs: list[TensorSpec], others: list[TensorSpec]) -> None:
    layout, other = Layout(tuple(specs)), Layout(tuple(others))
    assert layout.is_described_by(model_pb2.Layout.FromString(layout.to_proto().SerializeToString()))
    assert layout.is_described_by(other.to_proto()) is (layout == other)


def proto(*tensors: model_pb2.Tensor) -> model_pb2.Layout:
    return model_pb2.Layout(tensors=tensors)


def tensor(name: str = "a", dtype: int = model_pb2.DTYPE_FLOAT32, shape: tuple[int, ...] = (1,)) -> model_pb2.Tensor:
    return model_pb2.Tensor(name=name, dtype=dtype, shape=shape, trainable=True)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (proto(), "at least one tensor"),
        (proto(tensor(), tensor()), "two tensors are named 'a'"),
        (proto(tensor(name="")), "1 to 512 characters"),
        (proto(tensor(name="x" * (MAX_TENSOR_NAME + 1))), "1 to 512 characters"),
        (proto(tensor(dtype=model_pb2.DTYPE_UNSPECIFIED)), "dtype 0; supported"),
        (proto(tensor(dtype=77)), "dtype 77; supported"),
        (proto(tensor(shape=(1,) * (MAX_DIMENSIONS + 1))), "33 dimensions"),
        (proto(tensor(shape=(MAX_MODEL_BYTES,))), "more than"),
        (proto(tensor(shape=(2**64 - 1,) * MAX_DIMENSIONS)), "more than"),
        (proto(*(tensor(name=str(i), shape=(MAX_MODEL_BYTES // 16,)) for i in range(5))), "more than"),
        (proto(*(tensor(name=str(i), shape=()) for i in range(MAX_TENSORS + 1))), "20001 tensors"),
        # No bytes at all, and yet shapes that no array can have.
        (proto(tensor(shape=(0, 2**63))), "more than"),
        (proto(tensor(shape=(0, 2**31, 2**31))), "more than"),
    ],
)
def test_hostile_layouts_are_refused(message: model_pb2.Layout, complaint: str) -> None:
    with pytest.raises(LayoutError, match=complaint):
        Layout.from_proto(message)


extents = st.one_of(st.integers(0, 4), st.integers(0, 2**64 - 1), st.sampled_from([2**31, 2**32, 2**40, 2**63]))


@given(
    st.lists(
        st.builds(
            tensor,
            st.text(max_size=4),
            st.integers(0, 11),
            st.lists(extents, max_size=4).map(tuple),
        ),
        max_size=4,
    )
)
def test_whatever_is_accepted_can_be_used(specs: list[model_pb2.Tensor]) -> None:
    """A layout either is refused with LayoutError or works; nothing else may come out of a peer's message."""
    try:
        layout = Layout.from_proto(proto(*specs))
    except LayoutError:
        return
    if layout.nbytes <= 1 << 20:
        views = layout.views(layout.allocate())
        assert [list(view.shape) for view in views.values()] == [list(t.shape) for t in specs]


def test_limits_themselves_are_allowed() -> None:
    names = {f"{i:0{MAX_TENSOR_NAME}}": np.zeros((), np.int8) for i in range(3)}
    assert Layout.of(names).nbytes == 3
    assert Layout.of({"a": np.zeros((1,) * MAX_DIMENSIONS)}).nbytes == 8
    assert Layout((TensorSpec("a", "uint8", (MAX_MODEL_BYTES,)),)).nbytes == MAX_MODEL_BYTES
    assert len(Layout.from_proto(proto(*(tensor(name=str(i)) for i in range(MAX_TENSORS)))).tensors) == MAX_TENSORS


def test_frozen_names_must_exist() -> None:
    with pytest.raises(LayoutError, match=r"not in the model: \['c'\]"):
        Layout.of({"a": np.zeros(1)}, frozen=["c"])


@pytest.mark.parametrize("dtype", ["complex64", "uint64", "<U3", "object", "datetime64[s]"])
def test_unsupported_dtypes_are_named(dtype: str) -> None:
    with pytest.raises(LayoutError, match="tensor 'a' has dtype"):
        Layout.of({"a": np.zeros(2, dtype)})

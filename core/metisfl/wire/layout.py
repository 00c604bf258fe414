"""How a model lies in memory: named tensors, grouped into segments of one flat buffer.

A *layout* is the ordered list of tensors that both sides agree on. Tensors of the same dtype and the same trainable
flag form a *segment*; segments follow each other in the order in which their first tensor appears, each starting on a
64-byte border, tensors packed without gaps inside. Kernels and the wire see segments only, so nothing depends on how
many tensors a model has or how unequal they are, and no part is limited to 2 GiB.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from metisfl.proto.v1 import model_pb2
from metisfl.wire.huge_pages import HUGE_PAGE, zeros_in_huge_pages
from metisfl.wire.limits import ALIGNMENT, MAX_DIMENSIONS, MAX_MODEL_BYTES, MAX_TENSOR_NAME, MAX_TENSORS

Buffer = NDArray[np.uint8]

_DTYPES: dict[str, model_pb2.DType.ValueType] = {
    "float16": model_pb2.DTYPE_FLOAT16,
    "float32": model_pb2.DTYPE_FLOAT32,
    "float64": model_pb2.DTYPE_FLOAT64,
    "int8": model_pb2.DTYPE_INT8,
    "int16": model_pb2.DTYPE_INT16,
    "int32": model_pb2.DTYPE_INT32,
    "int64": model_pb2.DTYPE_INT64,
    "uint8": model_pb2.DTYPE_UINT8,
    "bool": model_pb2.DTYPE_BOOL,
    "bfloat16": model_pb2.DTYPE_BFLOAT16,
}
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_DTYPE_NAMES = {number: name for name, number in _DTYPES.items()}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a tensor's dtype name; bfloat16 is the one that NumPy has from `ml_dtypes`."""
    return _BFLOAT16 if name == "bfloat16" else np.dtype(name)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is floating point; NumPy itself does not count bfloat16."""
    return dtype.kind == "f" or dtype == _BFLOAT16


class LayoutError(ValueError):
    """A model that cannot be described, or does not have the layout it should have."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: `dtype` is NumPy's name of it, `shape` is () for a scalar."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    trainable: bool = True

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}{'' if self.trainable else ' (not trainable)'}"


@dataclass(frozen=True)
class Segment:
    """A run of elements of one dtype. `offset` is in bytes from the start of the buffer."""

    dtype: np.dtype[np.generic]
    trainable: bool
    offset: int
    elements: int

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize

    def of(self, buffer: Buffer) -> NDArray[np.generic]:
        """This segment's elements as a flat view of a model's buffer."""
        return buffer[self.offset : self.offset + self.nbytes].view(self.dtype)


@dataclass(frozen=True)
class Layout:
    """Ordered tensors of a model, and where each lies in the flat buffer.

    Raises LayoutError when built from tensors that no model may have: none at all, two of one name, an unsupported
    dtype, or more than the limits of `metisfl.wire.limits`.
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        _check_tensors(self.tensors)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]], frozen: Collection[str] = ()) -> Layout:
        """The layout of named arrays in their order; names in `frozen` are marked as not trainable."""
        unknown = set(frozen) - set(arrays)
        if unknown:
            raise LayoutError(f"not trainable, but not in the model: {sorted(unknown)}")
        return cls(
            tuple(
                TensorSpec(name, np.asarray(array).dtype.name, tuple(np.shape(array)), name not in frozen)
                for name, array in arrays.items()
            )
        )

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        elements: dict[tuple[str, bool], int] = {}
        for tensor in self.tensors:
            key = (tensor.dtype, tensor.trainable)
            elements[key] = elements.get(key, 0) + tensor.elements
        segments, offset = [], 0
        for (dtype, trainable), count in elements.items():
            segment = Segment(numpy_dtype(dtype), trainable, offset, count)
            segments.append(segment)
            offset = aligned(offset + segment.nbytes)
        return tuple(segments)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the flat buffer, gaps between segments included."""
        last = self.segments[-1]
        return last.offset + last.nbytes

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(segment.elements for segment in self.segments)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, dtypes, shapes and flags, in order. Equal digests mean interchangeable buffers."""
        # JSON quotes the names: whatever they hold, two layouts never read the same.
        text = json.dumps([(t.name, t.dtype, t.shape, t.trainable) for t in self.tensors])
        return hashlib.sha256(text.encode()).hexdigest()

    def allocate(self) -> Buffer:
        """A zeroed buffer for this layout that starts on a 64-byte border."""
        return aligned_zeros(self.nbytes)

    def pack(self, arrays: Mapping[str, NDArray[np.generic]], into: Buffer | None = None) -> Buffer:
        """Copy arrays into a flat buffer. Raises LayoutError when they do not have this layout."""
        buffer = self.allocate() if into is None else into
        problems = []
        for name, view in self.views(buffer).items():
            array = arrays.get(name)
            if array is None:
                problems.append(f"tensor '{name}' is missing")
            elif array.dtype != view.dtype or array.shape != view.shape:
                problems.append(
                    f"tensor '{name}' is {array.dtype}{list(array.shape)}, expected {view.dtype}{list(view.shape)}"
                )
            else:
                view[...] = array
        problems += [f"tensor '{name}' is not part of the model" for name in arrays if name not in self._places]
        if problems:
            raise LayoutError("; ".join(problems[:5]))
        return buffer

    def views(self, buffer: Buffer) -> dict[str, NDArray[np.generic]]:
        """Named tensors as views of a flat buffer; writing to them writes to the buffer."""
        if buffer.dtype != np.uint8 or buffer.size < self.nbytes:
            raise LayoutError(f"a buffer of {self.nbytes} bytes is needed, and {buffer.nbytes} were given")
        views = {}
        for tensor in self.tensors:
            start, dtype = self._places[tensor.name]
            stop = start + tensor.elements * dtype.itemsize
            views[tensor.name] = buffer[start:stop].view(dtype).reshape(tensor.shape)
        return views

    @cached_property
    def _places(self) -> dict[str, tuple[int, np.dtype[np.generic]]]:
        """Byte offset and dtype of every tensor."""
        nexts = {(s.dtype.name, s.trainable): s.offset for s in self.segments}
        places = {}
        for tensor in self.tensors:
            key, dtype = (tensor.dtype, tensor.trainable), numpy_dtype(tensor.dtype)
            places[tensor.name] = (nexts[key], dtype)
            nexts[key] += tensor.elements * dtype.itemsize
        return places

    def tensor_at(self, segment: Segment, element: int) -> str:
        """The name of the tensor that holds one element of a segment."""
        for tensor in self.tensors:
            if numpy_dtype(tensor.dtype) == segment.dtype and tensor.trainable == segment.trainable:
                if element < tensor.elements:
                    return tensor.name
                element -= tensor.elements
        raise IndexError(f"a segment of {segment.elements} elements has no element {element}")

    def difference(self, other: Layout, limit: int = 5) -> list[str]:
        """How `other` differs from this layout, one line a tensor, at most `limit` lines; empty when equal."""
        mine = {tensor.name: tensor for tensor in self.tensors}
        theirs = {tensor.name: tensor for tensor in other.tensors}
        lines = [f"tensor '{name}' is missing" for name in mine if name not in theirs]
        lines += [f"tensor '{name}' is unknown" for name in theirs if name not in mine]
        lines += [
            f"tensor '{name}' is {theirs[name]}, expected {tensor}"
            for name, tensor in mine.items()
            if name in theirs and theirs[name] != tensor
        ]
        if not lines and self != other:
            lines = ["the tensors are the same, in another order"]
        return lines if len(lines) <= limit else [*lines[:limit], f"and {len(lines) - limit} more"]

    def to_proto(self) -> model_pb2.Layout:
        return model_pb2.Layout(
            tensors=[
                model_pb2.Tensor(name=t.name, dtype=_DTYPES[t.dtype], shape=t.shape, trainable=t.trainable)
                for t in self.tensors
            ]
        )

    def is_described_by(self, message: model_pb2.Layout) -> bool:
        """Whether a peer's message says just this. Far cheaper than reading it: ten thousand learners all send one."""
        return message.SerializeToString(deterministic=True) == self._serialised

    @cached_property
    def _serialised(self) -> bytes:
        return self.to_proto().SerializeToString(deterministic=True)

    @classmethod
    def from_proto(cls, message: model_pb2.Layout) -> Layout:
        """Raises LayoutError for anything a peer should not have sent."""
        if len(message.tensors) > MAX_TENSORS:
            raise LayoutError(f"{len(message.tensors)} tensors, at most {MAX_TENSORS} are allowed")
        return cls(
            tuple(
                TensorSpec(t.name, _DTYPE_NAMES.get(t.dtype, f"dtype {t.dtype}"), tuple(t.shape), t.trainable)
                for t in message.tensors
            )
        )


def aligned_zeros(nbytes: int) -> Buffer:
    """Zeroed bytes that start on a 64-byte border; the pages are not touched until they are written. Raises
    MemoryError."""
    if nbytes >= HUGE_PAGE and sys.platform == "linux":
        return zeros_in_huge_pages(nbytes)
    raw = np.zeros(nbytes + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def aligned(offset: int) -> int:
    """The next multiple of 64 bytes."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _check_tensors(tensors: Iterable[TensorSpec]) -> None:
    seen: set[str] = set()
    total = 0
    for tensor in tensors:
        if not 0 < len(tensor.name) <= MAX_TENSOR_NAME:
            raise LayoutError(f"a tensor's name must have 1 to {MAX_TENSOR_NAME} characters: '{tensor.name[:80]}'")
        if tensor.name in seen:
            raise LayoutError(f"two tensors are named '{tensor.name}'")
        seen.add(tensor.name)
        if tensor.dtype not in _DTYPES:
            raise LayoutError(f"tensor '{tensor.name}' has dtype {tensor.dtype}; supported: {', '.join(_DTYPES)}")
        if len(tensor.shape) > MAX_DIMENSIONS:
            raise LayoutError(f"tensor '{tensor.name}' has {len(tensor.shape)} dimensions, at most {MAX_DIMENSIONS}")
        itemsize = numpy_dtype(tensor.dtype).itemsize
        total += tensor.elements * itemsize
        # NumPy bounds the other extents of an empty array as if it were not empty.
        extent = math.prod(max(1, side) for side in tensor.shape) * itemsize
        if max(total, extent) > MAX_MODEL_BYTES:
            raise LayoutError(f"the model has more than {MAX_MODEL_BYTES} bytes")
    if not seen:
        raise LayoutError("a model needs at least one tensor")
    if len(seen) > MAX_TENSORS:
        raise LayoutError(f"{len(seen)} tensors, at most {MAX_TENSORS} are allowed")

"""Encoding global models for the way down, and decoding what learners have received: the controller's half of
`metisfl.wire.codecs`, equal to its NumPy reference bit for bit (of NaNs, only that they are NaNs)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange
from numpy.typing import NDArray

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl.wire.narrowing import LARGEST_SCALE, SMALLEST_SCALE
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import pointer, take
from metisfl_controller.aggregation.kernels.bits import (
    bits_of,
    single_of,
    single_to_brain,
    single_to_half,
)
from metisfl_controller.aggregation.kernels.readers import read_dense
from metisfl_controller.aggregation.kernels.schedule import Blockwise
from metisfl_controller.aggregation.mapped import release

Singles = NDArray[np.float32]

_BLOCK = 1 << 12
"""Elements: read into 16 KiB of float32, which stay in the level-1 cache, and written from there."""

_INFINITE = np.uint32(0x7F800000)
_LARGEST, _SMALLEST = np.float32(LARGEST_SCALE), np.float32(SMALLEST_SCALE)


@njit(nogil=True, error_model="numpy")
def _scale(values: Singles, codes: Any) -> Any:
    """Write the codes of one block of SCALED and return its scale."""
    largest = np.uint32(0)
    for i in range(values.size):
        # Magnitudes of floats are ordered like their bits, with infinity and NaN on top.
        largest = max(largest, np.uint32(bits_of(values[i]) & 0x7FFFFFFF))
    scale = min(single_of(largest) / np.float32(127), _LARGEST)
    if largest >= _INFINITE or scale < _SMALLEST:
        for i in range(codes.size):
            codes[i] = 0
        return np.float32(np.nan) if largest >= _INFINITE else np.float32(0)
    for i in range(values.size):
        codes[i] = np.int8(np.rint(values[i] / scale))
    return scale


@njit(nogil=True)
def _write(kind: int, first: int, second: int, at: int, values: Singles) -> None:
    n = values.size
    if kind == kinds.FLOAT32:
        singles = carray(pointer(first + at * 4), n, np.float32)
        for i in range(n):
            singles[i] = values[i]
    elif kind == kinds.FLOAT64:
        doubles = carray(pointer(first + at * 8), n, np.float64)
        for i in range(n):
            doubles[i] = values[i]
    elif kind == kinds.FLOAT16:
        halves = carray(pointer(first + at * 2), n, np.uint16)
        for i in range(n):
            halves[i] = single_to_half(values[i])
    elif kind == kinds.BFLOAT16:
        halves = carray(pointer(first + at * 2), n, np.uint16)
        for i in range(n):
            halves[i] = single_to_brain(values[i])
    elif kind == kinds.SCALED:
        codes = carray(pointer(first + at), n, np.int8)
        scales = carray(pointer(second + at // kinds.SCALE_BLOCK * 4), -(-n // kinds.SCALE_BLOCK), np.float32)
        for block in range(scales.size):
            part = slice(block * kinds.SCALE_BLOCK, min(n, (block + 1) * kinds.SCALE_BLOCK))
            scales[block] = _scale(values[part], codes[part])


@njit(nogil=True)
def _convert_blocks(
    ticket: int, step: int, stop: int, kind: int, first: int, second: int, out_kind: int, out: int, out_second: int
) -> None:
    scratch = np.empty(_BLOCK, np.float32)
    while True:
        start = take(ticket, step)
        if start >= stop:
            return
        for at in range(start, min(stop, start + step), _BLOCK):
            values = scratch[: min(_BLOCK, stop - at)]
            read_dense(kind, first, second, at, values)
            _write(out_kind, out, out_second, at, values)


@njit(nogil=True, cache=True)
def _convert_alone(*arguments):  # type: ignore[no-untyped-def]
    _convert_blocks(*arguments)


@njit(parallel=True, nogil=True, cache=True)
def _convert_together(workers, *arguments):  # type: ignore[no-untyped-def]
    for _ in prange(workers):
        _convert_blocks(*arguments)


_CONVERT = Blockwise(_convert_alone, _convert_together)


def encode(encoding: Encoding, model: Buffer, into: Buffer | None = None) -> Buffer:
    """The section for a whole model, as `Encoding.encode`. Not for TopK, which no model travels in.

    Without `into`, Float32 returns `model` itself and every other codec a new buffer.
    """
    if into is None:
        if encoding.codec is Codec.FLOAT32:
            return model
        into = aligned_zeros(encoding.nbytes)
    kinds.require(model, encoding.layout.nbytes, "a model")
    kinds.require(into, encoding.nbytes, "a section")
    for encoded in encoding.segments:
        source = (encoded.segment.of(model),)
        _convert(
            kinds.kind_of_dtype(encoded.segment.dtype), source, kinds.kind_of(encoded), kinds.planes(encoded, into)
        )
    return into


def decode(encoding: Encoding, content: Buffer, into: Buffer | None = None) -> Buffer:
    """The model that a section holds, as `Encoding.decode`. Not for TopK.

    Without `into`, Float32 returns `content` itself and every other codec a new buffer.
    """
    if into is None:
        if encoding.codec is Codec.FLOAT32:
            return content
        into = encoding.layout.allocate()
    kinds.require(content, encoding.nbytes, "a section")
    kinds.require(into, encoding.layout.nbytes, "a model")
    for encoded in encoding.segments:
        out = (encoded.segment.of(into),)
        _convert(kinds.kind_of(encoded), kinds.planes(encoded, content), kinds.kind_of_dtype(out[0].dtype), out)
    return into


def _convert(kind: int, source: tuple[NDArray[Any], ...], out_kind: int, out: tuple[NDArray[Any], ...]) -> None:
    if kinds.SPARSE in (kind, out_kind):
        raise ValueError("TopK is for updates only, which are added to the sums as they are")
    if kind == out_kind:
        out[0][...] = source[0]
        return
    elements = out[0].size
    _CONVERT.run(
        0,
        elements,
        _BLOCK,
        elements * 2,
        kind,
        source[0].ctypes.data,
        source[-1].ctypes.data,
        out_kind,
        out[0].ctypes.data,
        out[-1].ctypes.data,
    )
    for array in source:
        release(array, written=False)
    for array in out:
        release(array, written=True)


def compile_all() -> None:
    _CONVERT.compile(kinds.FLOAT32, 0, 0, kinds.FLOAT32, 0, 0)

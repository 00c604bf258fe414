"""Inner loops that read one block of one model into a row of floats, whatever the form it has arrived in.

All take the model's addresses, the block's first element `at` (a multiple of SCALE_BLOCK from the segment's start) and
`row` (n,), which they fill with elements `at` … `at + n`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import overload

from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import pointer
from metisfl_controller.aggregation.kernels.adders import position
from metisfl_controller.aggregation.kernels.bits import brain_to_single, half_to_single

SINGLES = frozenset({kinds.FLOAT32, kinds.FLOAT16, kinds.BFLOAT16, kinds.SCALED, kinds.SPARSE})
"""Kinds whose every value is a float32; of the others, a row of float64 holds all but integers beyond 2^53."""


def _elements(dtype: type[Any]) -> Callable[..., None]:
    size = np.dtype(dtype).itemsize

    @njit(nogil=True)
    def read(first: int, at: int, row: Any) -> None:
        values = carray(pointer(first + at * size), row.size, dtype)
        for i in range(row.size):
            row[i] = values[i]

    return read


_read_float32 = _elements(np.float32)
_read_float64 = _elements(np.float64)
_read_int8 = _elements(np.int8)
_read_int16 = _elements(np.int16)
_read_int32 = _elements(np.int32)
_read_int64 = _elements(np.int64)
_read_uint8 = _elements(np.uint8)


@njit(nogil=True)
def _read_bool(first: int, at: int, row: Any) -> None:
    votes = carray(pointer(first + at), row.size, np.uint8)
    for i in range(row.size):
        # Any byte may have come from the wire; whatever is not 0 is true.
        row[i] = 1 if votes[i] != 0 else 0


@njit(nogil=True)
def _read_scaled(first: int, second: int, at: int, row: Any) -> None:
    n = row.size
    codes = carray(pointer(first + at), n, np.int8)
    scales = carray(pointer(second + at // kinds.SCALE_BLOCK * 4), -(-n // kinds.SCALE_BLOCK), np.float32)
    whole = n // kinds.SCALE_BLOCK
    for block in range(whole):
        start, scale = block * kinds.SCALE_BLOCK, scales[block]
        for i in range(start, start + kinds.SCALE_BLOCK):
            row[i] = np.float32(codes[i]) * scale
    for i in range(whole * kinds.SCALE_BLOCK, n):
        row[i] = np.float32(codes[i]) * scales[whole]


@njit(nogil=True)
def _read_sparse(first: int, second: int, kept: int, at: int, row: Any) -> None:
    for i in range(row.size):
        row[i] = 0
    indices = carray(pointer(first), kept, np.uint32)
    values = carray(pointer(second), kept, np.float32)
    for j in range(position(indices, at), position(indices, at + row.size)):
        row[np.int64(indices[j]) - at] = values[j]


@njit(nogil=True)
def read_dense(kind: int, first: int, second: int, at: int, row: Any) -> None:
    """Models of the dense floating-point kinds."""
    if kind == kinds.FLOAT32:
        _read_float32(first, at, row)
    elif kind == kinds.FLOAT64:
        _read_float64(first, at, row)
    elif kind == kinds.FLOAT16:
        halves = carray(pointer(first + at * 2), row.size, np.uint16)
        for i in range(row.size):
            row[i] = half_to_single(halves[i])
    elif kind == kinds.BFLOAT16:
        brains = carray(pointer(first + at * 2), row.size, np.uint16)
        for i in range(row.size):
            row[i] = brain_to_single(brains[i])
    elif kind == kinds.SCALED:
        _read_scaled(first, second, at, row)


@njit(nogil=True)
def read_floats(kind: int, first: int, second: int, kept: int, at: int, row: Any) -> None:
    """Models of any floating-point kind; `kept` is what TopK keeps."""
    if kind == kinds.SPARSE:
        _read_sparse(first, second, kept, at, row)
    else:
        read_dense(kind, first, second, at, row)


@njit(nogil=True)
def _read_wide(kind: int, first: int, at: int, row: Any) -> None:
    if kind == kinds.FLOAT64:
        _read_float64(first, at, row)
    elif kind == kinds.INT8:
        _read_int8(first, at, row)
    elif kind == kinds.INT16:
        _read_int16(first, at, row)
    elif kind == kinds.INT32:
        _read_int32(first, at, row)
    elif kind == kinds.INT64:
        _read_int64(first, at, row)
    elif kind == kinds.UINT8:
        _read_uint8(first, at, row)
    elif kind == kinds.BOOL:
        _read_bool(first, at, row)


def read_row(kind: int, first: int, second: int, kept: int, at: int, row: Any) -> None:
    """Models of the kinds that the dtype of `row` is for: float32 of those in SINGLES, float64 of all others. Each is
    compiled for its own kinds only. Kernels call it; Python cannot."""
    raise NotImplementedError


def _read_single_row(kind: int, first: int, second: int, kept: int, at: int, row: Any) -> None:
    read_floats(kind, first, second, kept, at, row)


def _read_double_row(kind: int, first: int, second: int, kept: int, at: int, row: Any) -> None:
    _read_wide(kind, first, at, row)


@overload(read_row, jit_options={"nogil": True})
def _reader_of(kind: int, first: int, second: int, kept: int, at: int, row: Any) -> Any:
    return _read_single_row if row.dtype == types.float32 else _read_double_row

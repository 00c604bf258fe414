"""Inner loops that finish a block: sums / total, plus a share of the base, rounded once to the model's dtype.

They return how many results are not finite, which sums and bases that are finite can still lead to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit
from numpy.typing import NDArray

from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import pointer
from metisfl_controller.aggregation.kernels.bits import (
    brain_to_single,
    half_to_single,
    single_to_brain,
    single_to_half,
    to_odd,
)

Sums = NDArray[np.float64]


def _floats(
    dtype: type[Any], infinite: int, wide: Callable[[Any], Any], narrow: Callable[[Any], Any]
) -> Callable[..., int]:
    """`infinite`: the bits of infinity, which those of no finite number reach, as an unsigned integer of the dtype's
    width. `wide` and `narrow` turn an element into a number, and a float64 into an element."""
    size = np.dtype(dtype).itemsize
    unsigned = np.dtype(f"u{size}").type
    mask, limit = unsigned((1 << (8 * size - 1)) - 1), unsigned(infinite)
    exact = size == 8

    @njit(nogil=True, error_model="numpy")
    def write(sums: Sums, total: float, out: int, base: int, share: float, at: int) -> int:
        n = sums.size
        target = carray(pointer(out + at * size), n, dtype)
        # Division takes longer than memory does. What the reciprocal's rounding does to a float64 is lost on a float32.
        inverse = 1.0 / total
        if base:
            added = carray(pointer(base + at * size), n, dtype)
            for i in range(n):
                mean = sums[i] / total if exact else sums[i] * inverse
                target[i] = narrow(share * np.float64(wide(added[i])) + mean)
        else:
            for i in range(n):
                target[i] = narrow(sums[i] / total if exact else sums[i] * inverse)
        # While it is in the cache.
        bits = carray(pointer(out + at * size), n, unsigned)
        bad = 0
        for i in range(n):
            bad += 1 if (bits[i] & mask) >= limit else 0
        return bad

    return write


def _integers(dtype: type[Any]) -> Callable[..., int]:
    size = np.dtype(dtype).itemsize
    lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
    # 2**63 - 1 is no float64, and 2**63 no int64.
    least, most = float(lowest), float(highest)

    @njit(nogil=True, error_model="numpy")
    def write(sums: Sums, total: float, out: int, at: int) -> int:
        target = carray(pointer(out + at * size), sums.size, dtype)
        for i in range(sums.size):
            mean = np.rint(sums[i] / total)
            if mean >= most:
                target[i] = highest
            elif mean <= least:
                target[i] = lowest
            else:
                target[i] = dtype(mean)
        return 0

    return write


@njit(inline="always")
def _same(x: Any) -> Any:
    return x


@njit(inline="always")
def _to_single(x: Any) -> Any:
    return np.float32(x)


@njit(inline="always")
def _to_half(x: Any) -> Any:
    return single_to_half(to_odd(x))


@njit(inline="always")
def _to_brain(x: Any) -> Any:
    return single_to_brain(to_odd(x))


_write_float32 = _floats(np.float32, 0x7F800000, _same, _to_single)
_write_float64 = _floats(np.float64, 0x7FF0000000000000, _same, _same)
_write_float16 = _floats(np.uint16, 0x7C00, half_to_single, _to_half)
_write_bfloat16 = _floats(np.uint16, 0x7F80, brain_to_single, _to_brain)
_write_int8 = _integers(np.int8)
_write_int16 = _integers(np.int16)
_write_int32 = _integers(np.int32)
_write_int64 = _integers(np.int64)
_write_uint8 = _integers(np.uint8)


@njit(nogil=True, error_model="numpy")
def _write_bool(sums: Sums, total: float, out: int, at: int) -> int:
    target = carray(pointer(out + at), sums.size, np.uint8)
    for i in range(sums.size):
        target[i] = 1 if sums[i] / total > 0.5 else 0
    return 0


@njit(inline="always")
def write_block(kind: int, sums: Sums, total: float, out: int, base: int, share: float, at: int) -> int:
    """Write elements `at` … `at + sums.size` of a segment at address `out`. `base`: the address of what to add to a
    floating-point mean, times `share`, of the same dtype, or 0."""
    if kind == kinds.FLOAT32:
        return _write_float32(sums, total, out, base, share, at)
    if kind == kinds.FLOAT64:
        return _write_float64(sums, total, out, base, share, at)
    if kind == kinds.FLOAT16:
        return _write_float16(sums, total, out, base, share, at)
    if kind == kinds.BFLOAT16:
        return _write_bfloat16(sums, total, out, base, share, at)
    if kind == kinds.INT8:
        return _write_int8(sums, total, out, at)
    if kind == kinds.INT16:
        return _write_int16(sums, total, out, at)
    if kind == kinds.INT32:
        return _write_int32(sums, total, out, at)
    if kind == kinds.INT64:
        return _write_int64(sums, total, out, at)
    if kind == kinds.UINT8:
        return _write_uint8(sums, total, out, at)
    return _write_bool(sums, total, out, at)

"""Inner loops that add models to float64 sums, for one block of elements at a time.

All take `sums` (n,), the addresses of each model's planes, `weights`, the block's first element `at`, and add the
models one after the other: s = s + w·x for each element, whatever the grouping. The multiplication and the addition may
be fused into one rounding ("contract"), alike in every group size, so results never depend on how many models came
together. Values are finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit
from numpy.typing import NDArray

from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import pointer
from metisfl_controller.aggregation.kernels.bits import brain_to_single, half_to_single
from metisfl_controller.aggregation.kernels.vectors import WIDTH, add_brains, add_singles

Sums = NDArray[np.float64]
Addresses = NDArray[np.int64]
Weights = NDArray[np.float64]

_FAST = {"contract"}


def _grouped(dtype: type[Any], add_vector: Any, wide: Callable[[Any], Any]) -> Callable[..., None]:
    """Adds models in groups of eight, four, two and one: sums are loaded and stored once a group, and several streams
    keep the memory busy."""
    size = np.dtype(dtype).itemsize

    @njit(nogil=True, fastmath=_FAST)
    def add_group(sums: Sums, models: Any, weights: Any, at: int) -> None:
        whole = sums.size // WIDTH * WIDTH
        origin = sums.ctypes.data - at * 8
        for i in range(at, at + whole, WIDTH):
            add_vector(origin, models, weights, i)
        for k in range(len(models)):
            rest = carray(pointer(models[k] + at * size), sums.size, dtype)
            for i in range(whole, sums.size):
                sums[i] += weights[k] * np.float64(wide(rest[i]))

    @njit(nogil=True, fastmath=_FAST)
    def add(sums: Sums, first: Addresses, weights: Weights, at: int) -> None:
        k = 0
        while first.size - k >= 8:
            add_group(sums, _four(first, k) + _four(first, k + 4), _four(weights, k) + _four(weights, k + 4), at)
            k += 8
        if first.size - k >= 4:
            add_group(sums, _four(first, k), _four(weights, k), at)
            k += 4
        if first.size - k >= 2:
            add_group(sums, (first[k], first[k + 1]), (weights[k], weights[k + 1]), at)
            k += 2
        if first.size > k:
            add_group(sums, (first[k],), (weights[k],), at)

    return add


@njit(inline="always")
def _four(values: Any, k: int) -> Any:
    return values[k], values[k + 1], values[k + 2], values[k + 3]


def _single(dtype: type[Any], wide: Callable[[Any], Any]) -> Callable[..., None]:
    """Adds models one by one: slower when many come together, as fast for one, and quicker to compile."""
    size = np.dtype(dtype).itemsize

    @njit(nogil=True, fastmath=_FAST)
    def add(sums: Sums, first: Addresses, weights: Weights, at: int) -> None:
        for k in range(first.size):
            model = carray(pointer(first[k] + at * size), sums.size, dtype)
            weight = weights[k]
            for i in range(sums.size):
                sums[i] += weight * np.float64(wide(model[i]))

    return add


@njit(inline="always")
def _same(x: Any) -> Any:
    return x


_add_float32 = _grouped(np.float32, add_singles, _same)
_add_bfloat16 = _grouped(np.uint16, add_brains, brain_to_single)
_add_float64 = _single(np.float64, _same)
_add_float16 = _single(np.uint16, half_to_single)
_add_int8 = _single(np.int8, _same)
_add_int16 = _single(np.int16, _same)
_add_int32 = _single(np.int32, _same)
_add_int64 = _single(np.int64, _same)
_add_uint8 = _single(np.uint8, _same)


@njit(nogil=True, fastmath=_FAST)
def _add_bool(sums: Sums, first: Addresses, weights: Weights, at: int) -> None:
    for k in range(first.size):
        votes = carray(pointer(first[k] + at), sums.size, np.uint8)
        weight = weights[k]
        for i in range(sums.size):
            # Any byte may have come from the wire; whatever is not 0 is one vote.
            sums[i] += weight if votes[i] != 0 else 0.0


@njit(nogil=True, fastmath=_FAST)
def _add_scaled(sums: Sums, first: Addresses, second: Addresses, weights: Weights, at: int) -> None:
    n = sums.size
    for k in range(first.size):
        codes = carray(pointer(first[k] + at), n, np.int8)
        scales = carray(
            pointer(second[k] + at // kinds.SCALE_BLOCK * 4),
            (n + kinds.SCALE_BLOCK - 1) // kinds.SCALE_BLOCK,
            np.float32,
        )
        weight = weights[k]
        # Rounded to float32 between the two products, as the decoded value is.
        whole = n // kinds.SCALE_BLOCK
        for block in range(whole):
            start, scale = block * kinds.SCALE_BLOCK, scales[block]
            for i in range(start, start + kinds.SCALE_BLOCK):
                sums[i] += weight * np.float64(np.float32(codes[i]) * scale)
        for i in range(whole * kinds.SCALE_BLOCK, n):
            sums[i] += weight * np.float64(np.float32(codes[i]) * scales[whole])


@njit(nogil=True)
def position(indices: Any, wanted: int) -> int:
    """The first of rising indices that is not below `wanted`."""
    low, high = 0, indices.size
    while low < high:
        middle = (low + high) // 2
        if np.int64(indices[middle]) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, fastmath=_FAST)
def _add_sparse(sums: Sums, first: Addresses, second: Addresses, kept: int, weights: Weights, at: int) -> None:
    for k in range(first.size):
        indices = carray(pointer(first[k]), kept, np.uint32)
        values = carray(pointer(second[k]), kept, np.float32)
        for j in range(position(indices, at), position(indices, at + sums.size)):
            sums[np.int64(indices[j]) - at] += weights[k] * np.float64(values[j])


@njit(inline="always")
def add_block(kind: int, sums: Sums, first: Addresses, second: Addresses, kept: int, weights: Weights, at: int) -> None:
    """Add elements `at` … `at + sums.size` of models that are of one kind, a multiple of SCALE_BLOCK from the start."""
    if kind == kinds.FLOAT32:
        _add_float32(sums, first, weights, at)
    elif kind == kinds.FLOAT64:
        _add_float64(sums, first, weights, at)
    elif kind == kinds.FLOAT16:
        _add_float16(sums, first, weights, at)
    elif kind == kinds.BFLOAT16:
        _add_bfloat16(sums, first, weights, at)
    elif kind == kinds.INT8:
        _add_int8(sums, first, weights, at)
    elif kind == kinds.INT16:
        _add_int16(sums, first, weights, at)
    elif kind == kinds.INT32:
        _add_int32(sums, first, weights, at)
    elif kind == kinds.INT64:
        _add_int64(sums, first, weights, at)
    elif kind == kinds.UINT8:
        _add_uint8(sums, first, weights, at)
    elif kind == kinds.BOOL:
        _add_bool(sums, first, weights, at)
    elif kind == kinds.SCALED:
        _add_scaled(sums, first, second, weights, at)
    elif kind == kinds.SPARSE:
        _add_sparse(sums, first, second, kept, weights, at)

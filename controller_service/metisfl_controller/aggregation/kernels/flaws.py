"""Looks for what makes an upload unusable, before any of it touches the sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange
from numpy.typing import NDArray

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer
from metisfl.wire.segments import EncodedSegment
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import pointer, take
from metisfl_controller.aggregation.kernels.bits import bits_of
from metisfl_controller.aggregation.kernels.schedule import Blockwise
from metisfl_controller.aggregation.mapped import tiles

_BLOCK = 1 << 16
_INDICES = kinds.SPARSE
"""A kind of this module: rising indices below a bound; SCALED means scales here. Others are kinds of elements."""


@njit(nogil=True)
def _count(kind: int, address: int, bound: int, at: int, n: int) -> int:
    bad = 0
    if kind == kinds.FLOAT32:
        singles = carray(pointer(address + at * 4), n, np.uint32)
        for i in range(n):
            bad += 1 if (singles[i] & np.uint32(0x7FFFFFFF)) >= np.uint32(0x7F800000) else 0
    elif kind == kinds.FLOAT64:
        doubles = carray(pointer(address + at * 8), n, np.uint64)
        for i in range(n):
            bad += 1 if (doubles[i] & np.uint64(0x7FFFFFFFFFFFFFFF)) >= np.uint64(0x7FF0000000000000) else 0
    elif kind == kinds.FLOAT16 or kind == kinds.BFLOAT16:
        infinite = np.uint16(0x7C00) if kind == kinds.FLOAT16 else np.uint16(0x7F80)
        halves = carray(pointer(address + at * 2), n, np.uint16)
        for i in range(n):
            bad += 1 if (halves[i] & np.uint16(0x7FFF)) >= infinite else 0
    elif kind == kinds.SCALED:
        scales = carray(pointer(address + at * 4), n, np.float32)
        for i in range(n):
            # Nor may the largest code times the scale leave float32.
            largest = bits_of(scales[i] * np.float32(-128))
            bad += 1 if (largest & np.uint32(0x7FFFFFFF)) >= np.uint32(0x7F800000) else 0
    elif kind == _INDICES:
        indices = carray(pointer(address), at + n, np.uint32)
        for i in range(max(1, at), at + n):
            bad += 1 if indices[i] <= indices[i - 1] else 0
        bad += 1 if np.int64(indices[at + n - 1]) >= bound else 0
    return bad


@njit(nogil=True)
def _count_blocks(ticket: int, step: int, stop: int, kind: int, address: int, bound: int) -> int:
    bad = 0
    while True:
        at = take(ticket, step)
        if at >= stop:
            return bad
        bad += _count(kind, address, bound, at, min(step, stop - at))


@njit(nogil=True, cache=True)
def _count_alone(*arguments):  # type: ignore[no-untyped-def]
    return _count_blocks(*arguments)


@njit(parallel=True, nogil=True, cache=True)
def _count_together(workers, *arguments):  # type: ignore[no-untyped-def]
    bad = 0
    for _ in prange(workers):
        bad += _count_blocks(*arguments)
    return bad


_COUNT = Blockwise(_count_alone, _count_together)


def flaw(encoding: Encoding, content: Buffer) -> str | None:
    """Why an upload cannot be used: a value that is not finite, or indices of TopK that do not rise or are out of
    range. None when all is well."""
    kinds.require(content, encoding.nbytes, "an upload")
    if not any(_flaws(encoded, content) for encoded in encoding.segments):
        return None
    return encoding.flaw(content) or "a scale of Int8 is so large that its values leave the range of float32"


def _flaws(encoded: EncodedSegment, content: Buffer) -> int:
    """How many flaws a segment has."""
    planes, kind = kinds.planes(encoded, content), kinds.kind_of(encoded)
    if kind == kinds.SPARSE:
        indices, values = planes
        return _count_in(_INDICES, indices, encoded.segment.elements) + _count_in(kinds.FLOAT32, values)
    if kind == kinds.SCALED:
        return _count_in(kinds.SCALED, planes[1])
    return _count_in(kind, planes[0]) if kind in _CHECKED else 0


_CHECKED = (kinds.FLOAT32, kinds.FLOAT64, kinds.FLOAT16, kinds.BFLOAT16)


def _count_in(kind: int, array: NDArray[Any], bound: int = 0) -> int:
    bad = 0
    for start, stop in tiles(array.size, read=[array]):
        bad += int(_COUNT.run(start, stop, _BLOCK, stop - start, kind, array.ctypes.data, bound))
    return bad


def compile_all() -> None:
    _COUNT.compile(kinds.FLOAT32, 0, 0)

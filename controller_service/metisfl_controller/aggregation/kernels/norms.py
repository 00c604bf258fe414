"""The length of an update in any encoded form, in one blocked pass. Compiled only for rules that clip."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, prange
from numpy.typing import NDArray

from metisfl.wire.layout import Buffer
from metisfl.wire.segments import EncodedSegment
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import pointer, take
from metisfl_controller.aggregation.kernels.adders import Addresses, Sums, Weights, add_block
from metisfl_controller.aggregation.kernels.schedule import Blockwise
from metisfl_controller.aggregation.mapped import tiles

_BLOCK = 1 << 14
_RUN = 1 << 10
"""Elements whose squares are added up on their own. Blocks depend on the number of threads, and runs do not: so the
norm is the same to the bit however many threads there are."""

_TILE = 1 << 24

_ONE, _MINUS_ONE = np.ones(1), -np.ones(1)


@njit(nogil=True)
def _add(kind: int, sums: Sums, first: Addresses, second: Addresses, kept: int, weights: Weights, at: int) -> None:
    add_block(kind, sums, first, second, kept, weights, at)


@njit(nogil=True, fastmath={"contract", "reassoc"})
def _squares(values: Sums) -> float:
    total = 0.0
    for i in range(values.size):
        total += values[i] * values[i]
    return total


@njit(nogil=True)
def _square_blocks(
    ticket: int,
    step: int,
    stop: int,
    kind: int,
    first: Addresses,
    second: Addresses,
    kept: int,
    base_kind: int,
    base: Addresses,
    one: Weights,
    minus_one: Weights,
    out: int,
) -> None:
    """The sum of squares of each run into the float64 array at `out`, by the run's number."""
    scratch = np.empty(step, np.float64)
    while True:
        at = take(ticket, step)
        if at >= stop:
            return
        n = min(step, stop - at)
        values = scratch[:n]
        for i in range(n):
            values[i] = 0.0
        _add(kind, values, first, second, kept, one, at)
        if base_kind != kinds.NOTHING:
            _add(base_kind, values, base, base, 0, minus_one, at)
        runs = carray(pointer(out + at // _RUN * 8), -(-n // _RUN), np.float64)
        for run in range(runs.size):
            runs[run] = _squares(values[run * _RUN : min(n, (run + 1) * _RUN)])


@njit(nogil=True, cache=True)
def _square_alone(*arguments):  # type: ignore[no-untyped-def]
    _square_blocks(*arguments)


@njit(parallel=True, nogil=True, cache=True)
def _square_together(workers, *arguments):  # type: ignore[no-untyped-def]
    for _ in prange(workers):
        _square_blocks(*arguments)


_SQUARE = Blockwise(_square_alone, _square_together)


def squared_norm(encoded: EncodedSegment, content: Buffer, base: NDArray[Any] | None = None) -> float:
    """Σ (x − base)² over a segment of an upload, in float64; `base` has shape (elements,) and the segment's dtype."""
    planes, elements = kinds.planes(encoded, content), encoded.segment.elements
    runs = np.zeros(-(-elements // _RUN), np.float64)
    for start, stop in tiles(elements, read=[*planes, base]):
        _SQUARE.run(start, stop, _BLOCK, (stop - start) * 3, *_arguments(encoded, planes, base, runs))
    return float(runs.sum())


def _arguments(
    encoded: EncodedSegment, planes: tuple[NDArray[Any], ...], base: NDArray[Any] | None, runs: NDArray[np.float64]
) -> tuple[Any, ...]:
    kind = kinds.kind_of(encoded)
    return (
        kind,
        _address(planes[0]),
        _address(planes[-1]),
        planes[0].size if kind == kinds.SPARSE else 0,
        kinds.NOTHING if base is None else kinds.kind_of_dtype(base.dtype),
        _address(base if base is not None else planes[0]),
        _ONE,
        _MINUS_ONE,
        runs.ctypes.data,
    )


def _address(array: NDArray[Any]) -> Addresses:
    return np.array([array.ctypes.data], np.int64)


def compile_all() -> None:
    nothing = _address(_ONE)
    _SQUARE.compile(kinds.FLOAT32, nothing, nothing, 0, kinds.NOTHING, nothing, _ONE, _MINUS_ONE, 0)

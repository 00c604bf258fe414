"""Order statistics of every coordinate over many models, in one pass over them.

A block of each model becomes a row of a scratch matrix that stays in the cache; a sorting network brings all columns
into order at once, a vector of columns at a time, without a branch that depends on the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import take
from metisfl_controller.aggregation.kernels.extremes import larger, smaller
from metisfl_controller.aggregation.kernels.folding import Source
from metisfl_controller.aggregation.kernels.networks import Pairs, sorting_network
from metisfl_controller.aggregation.kernels.readers import SINGLES, read_row
from metisfl_controller.aggregation.kernels.schedule import Blockwise

Sums = NDArray[np.float64]

_SCRATCH_BYTES = 1 << 15
"""Of the matrix: the level-1 cache, where that leaves rows that are worth a loop."""


@njit(nogil=True)
def _exchange(lower: Any, upper: Any) -> None:
    for i in range(lower.size):
        a, b = lower[i], upper[i]
        lower[i], upper[i] = smaller(a, b), larger(a, b)


@njit(nogil=True)
def _sum_ranks(rows: Any, low: int, high: int, sums: Any) -> None:
    for i in range(sums.size):
        sums[i] = 0.0
    for rank in range(low, high):
        row = rows[rank][: sums.size]
        for i in range(sums.size):
            sums[i] += np.float64(row[i])


@njit(nogil=True)
def _sum_around_median(rows: Any, width: int, starts: Any, sums: Any) -> None:
    """The sums of each column's `width` values that are closest to its median.

    They are neighbours in the order. Moving their window up by one pays as long as what enters is closer to the median
    than what leaves, and once it does not, it never will again: so each column can decide by itself at each step. It is
    summed when it has come to rest, as a huge value that had been in it would have taken the others' digits along.
    """
    n = sums.size
    first = starts[:n]
    below, above = rows[(rows.shape[0] - 1) // 2][:n], rows[rows.shape[0] // 2][:n]
    for i in range(n):
        first[i], sums[i] = 0, 0.0
    for start in range(rows.shape[0] - width):
        leaves, enters = rows[start][:n], rows[start + width][:n]
        for i in range(n):
            median = 0.5 * np.float64(below[i]) + 0.5 * np.float64(above[i])
            closer = np.float64(enters[i]) - median < median - np.float64(leaves[i])
            first[i] += 1 if closer else 0
    for rank in range(rows.shape[0]):
        row = rows[rank][:n]
        for i in range(n):
            inside = first[i] <= rank and rank < first[i] + width
            sums[i] += np.float64(row[i]) if inside else 0.0


@njit(nogil=True)
def _rank_blocks(
    ticket: int,
    step: int,
    stop: int,
    zero: Any,
    kind: int,
    first: Any,
    second: Any,
    kept: int,
    network: Pairs,
    low: int,
    high: int,
    around_median: bool,
    start: int,
    sums: Sums,
) -> None:
    """`zero` has the dtype of the rows."""
    rows = np.full((first.size, step), zero)
    starts = np.empty(step, np.int64)
    while True:
        at = take(ticket, step)
        if at >= stop:
            return
        n = min(step, stop - at)
        for k in range(first.size):
            read_row(kind, first[k], second[k], kept, at, rows[k][:n])
        for c in range(network.shape[0]):
            _exchange(rows[network[c, 0]][:n], rows[network[c, 1]][:n])
        here = sums[at - start : at - start + n]
        if around_median:
            _sum_around_median(rows, high - low, starts, here)
        else:
            _sum_ranks(rows, low, high, here)


@njit(nogil=True, cache=True)
def _rank_alone(*arguments):  # type: ignore[no-untyped-def]
    _rank_blocks(*arguments)


@njit(parallel=True, nogil=True, cache=True)
def _rank_together(workers, *arguments):  # type: ignore[no-untyped-def]
    for _ in prange(workers):
        _rank_blocks(*arguments)


_RANK = Blockwise(_rank_alone, _rank_together)


def sum_ranks(source: Source, start: int, stop: int, low: int, high: int, sums: Sums) -> None:
    """For elements `start` … `stop`, the sum of each one's values of ranks `low` … `high` (exclusive, of 0 … K).

    So the median of K models is a mean of ranks (K - 1) // 2 … K // 2 + 1, and one trimmed by b on either side of ranks
    b … K - b. `sums`, float64 of shape (stop - start,), is overwritten. `start` is a multiple of 64; weights do not
    matter. About K · log2(K)² / 4 comparisons an element; the error of a sum is at most K · 2^-53 · Σ |x|.
    """
    _run(source, start, stop, sorting_network(source.first.size, low, high), low, high, False, sums)


def sum_around_median(source: Source, start: int, stop: int, width: int, sums: Sums) -> None:
    """The same of each element's `width` values that are closest to its median, of equally close ones the smaller."""
    models = source.first.size
    _run(source, start, stop, sorting_network(models, 0, models), 0, width, True, sums)


def _run(
    source: Source, start: int, stop: int, network: Pairs, low: int, high: int, around_median: bool, sums: Sums
) -> None:
    zero: Any = np.float32(0) if source.kind in SINGLES else np.float64(0)
    models = source.first.size
    block = max(kinds.SCALE_BLOCK, _SCRATCH_BYTES // (models * zero.nbytes) // kinds.SCALE_BLOCK * kinds.SCALE_BLOCK)
    arguments = _arguments(zero, source, network, low, high, around_median, start, sums)
    _RANK.run(start, stop, block, (stop - start) * max(models, len(network)), *arguments)


def _arguments(
    zero: Any, source: Source, network: Pairs, low: int, high: int, around_median: bool, start: int, sums: Sums
) -> tuple[Any, ...]:
    models = (source.kind, source.first, source.second, source.kept)
    return (zero, *models, network, low, high, around_median, start, sums)


def compile_all() -> None:
    nothing = Source.of(kinds.FLOAT32, [], [])
    for zero in (np.float32(0), np.float64(0)):
        _RANK.compile(*_arguments(zero, nothing, sorting_network(0, 0, 0), 0, 0, False, 0, np.empty(0)))

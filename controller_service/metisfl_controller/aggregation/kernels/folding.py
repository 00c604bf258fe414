"""The fold: models of one segment into float64 sums, and, when it is the last, into their mean.

Blocks of elements are the outer loop and models the inner one. One block's sums stay in the cache while all models that
are ready are added to it, so the memory bus carries each model once, and the sums once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import carray, njit, prange
from numpy.typing import NDArray

from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import pointer, take
from metisfl_controller.aggregation.kernels.adders import Addresses, Sums, Weights, add_block
from metisfl_controller.aggregation.kernels.schedule import Blockwise
from metisfl_controller.aggregation.kernels.writers import write_block

BLOCK = 1 << 15
"""Elements per block, at most: 256 KiB of sums in the level-2 cache, and runs of 128 KiB of each model, which are long
enough for the prefetcher. 2**13 to 2**15 do as well within 5 %."""


@dataclass(frozen=True)
class Source:
    """Models of one segment, of one kind: the addresses of their planes, and what each weighs, shape (models,)."""

    kind: int
    first: Addresses
    second: Addresses
    kept: int
    weights: Weights

    @classmethod
    def of(cls, kind: int, models: Sequence[tuple[NDArray[Any], ...]], weights: Sequence[float]) -> Source:
        """`models`: the arrays each consists of (`kinds.planes`), which must outlive the source."""
        first = np.array([planes[0].ctypes.data for planes in models], np.int64)
        one_plane = all(len(planes) == 1 for planes in models)
        return cls(
            kind,
            first,
            first if one_plane else np.array([planes[1].ctypes.data for planes in models], np.int64),
            models[0][0].size if models and kind == kinds.SPARSE else 0,
            np.array(weights, np.float64),
        )


@njit(nogil=True)
def _fold_blocks(
    ticket: int,
    step: int,
    stop: int,
    kind: int,
    first: Addresses,
    second: Addresses,
    kept: int,
    weights: Weights,
    empty: bool,
    sums: int,
    out_kind: int,
    out: int,
    base: int,
    total: float,
    share: float,
) -> int:
    """Fold blocks until none is left; returns how many results are not finite."""
    finishing = out_kind != kinds.NOTHING
    scratch = np.empty(step if finishing else 0, np.float64)
    bad = 0
    while True:
        at = take(ticket, step)
        if at >= stop:
            return bad
        n = min(step, stop - at)
        standing = carray(pointer(sums + at * 8), n, np.float64)
        # The sums themselves are of no use any more when this is the end: they are not written back. Loops, because
        # array assignments bring error messages along that take seconds to compile.
        here = scratch[:n] if finishing else standing
        if empty:
            for i in range(n):
                here[i] = 0.0
        elif finishing:
            for i in range(n):
                here[i] = standing[i]
        add_block(kind, here, first, second, kept, weights, at)
        if finishing:
            bad += write_block(out_kind, here, total, out, base, share, at)


@njit(nogil=True, cache=True)
def _fold_alone(*arguments):  # type: ignore[no-untyped-def]
    return _fold_blocks(*arguments)


@njit(parallel=True, nogil=True, cache=True)
def _fold_together(workers, *arguments):  # type: ignore[no-untyped-def]
    bad = 0
    for _ in prange(workers):
        bad += _fold_blocks(*arguments)
    return bad


_FOLD = Blockwise(_fold_alone, _fold_together)


def fold(sums: Sums, source: Source, start: int, stop: int, *, empty: bool) -> None:
    """Add `weights[k] · models[k]` to elements `start` … `stop` of `sums`, shape (n,), one model after the other.

    The result is the same to the bit however the models are divided over calls and threads. Values are finite, and
    weights finite and not negative. `empty`: the sums hold nothing yet, whatever is in their memory. `start` is a
    multiple of 64. Error bound: K models give |error| ≤ K · 2^-53 · Σ |w·x|.
    """
    _run(sums, source, start, stop, empty, kinds.NOTHING, 0, 0, 1.0, 1.0)


def finish(
    sums: Sums,
    source: Source,
    start: int,
    stop: int,
    *,
    empty: bool,
    total: float,
    out: NDArray[Any],
    base: NDArray[Any] | None = None,
    share: float = 1.0,
) -> int:
    """The same, into `out`, without changing the sums: (sums + Σ w·x) / total (+ share · base), rounded once to out's
    dtype.

    Returns how many results are not finite. Floating-point values are rounded to nearest even (bfloat16 below 2^-126
    twice); integers to nearest, ties to even, and kept within their dtype; booleans are the majority's. `base` is for
    floating-point dtypes, of the same dtype and shape as `out`.
    """
    return _run(
        sums,
        source,
        start,
        stop,
        empty,
        kinds.kind_of_dtype(out.dtype),
        out.ctypes.data,
        0 if base is None else base.ctypes.data,
        total,
        share,
    )


def _run(
    sums: Sums,
    source: Source,
    start: int,
    stop: int,
    empty: bool,
    out_kind: int,
    out: int,
    base: int,
    total: float,
    share: float,
) -> int:
    arguments = _arguments(sums, source, empty, out_kind, out, base, total, share)
    return int(_FOLD.run(start, stop, BLOCK, (stop - start) * (source.weights.size + 2), *arguments))


def _arguments(
    sums: Sums, source: Source, empty: bool, out_kind: int, out: int, base: int, total: float, share: float
) -> tuple[Any, ...]:
    return (
        source.kind,
        source.first,
        source.second,
        source.kept,
        source.weights,
        empty,
        sums.ctypes.data,
        out_kind,
        out,
        base,
        float(total),
        float(share),
    )


def compile_all() -> None:
    nothing = Source.of(kinds.FLOAT32, [], [])
    _FOLD.compile(*_arguments(np.empty(0), nothing, True, kinds.NOTHING, 0, 0, 1.0, 1.0))

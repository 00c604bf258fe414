"""Numba kernels over flat segments; the only place that imports numba.

The fold reads up to eight models in one pass over cache-sized blocks, so the accumulator crosses the memory bus once
for eight models instead of once for each. Sums are kept in float64 whatever the tensors' dtype: exact for integers up
to 2**53 and beyond any rounding that matters for float32. Run all kernels from one thread: OpenMP teams of two
calling threads would compete for the same cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Array = NDArray[Any]
Sums = NDArray[np.float64]

FUSED = 8
"""Models folded per pass."""

_BLOCK = 1 << 13
"""Elements per block: eight float32 inputs and the sums of one block fit a 512 KiB level-2 cache."""


@njit(parallel=True, nogil=True, cache=True)
def _fold(sums, m0, m1, m2, m3, m4, m5, m6, m7, w):  # type: ignore[no-untyped-def]
    w0, w1, w2, w3, w4, w5, w6, w7 = w
    size = sums.size
    for block in prange((size + _BLOCK - 1) // _BLOCK):
        for i in range(block * _BLOCK, min(size, (block + 1) * _BLOCK)):
            sums[i] += (
                (w0 * m0[i] + w1 * m1[i])
                + (w2 * m2[i] + w3 * m3[i])
                + (w4 * m4[i] + w5 * m5[i])
                + (w6 * m6[i] + w7 * m7[i])
            )


@njit(parallel=True, nogil=True, cache=True)
def _divide(out, sums, total):  # type: ignore[no-untyped-def]
    for block in prange((sums.size + _BLOCK - 1) // _BLOCK):
        for i in range(block * _BLOCK, min(sums.size, (block + 1) * _BLOCK)):
            out[i] = sums[i] / total


@njit(parallel=True, nogil=True, cache=True)
def _divide_and_round(out, sums, total):  # type: ignore[no-untyped-def]
    for block in prange((sums.size + _BLOCK - 1) // _BLOCK):
        for i in range(block * _BLOCK, min(sums.size, (block + 1) * _BLOCK)):
            out[i] = np.rint(sums[i] / total)


@njit(parallel=True, nogil=True, cache=True)
def _count_not_finite(values):  # type: ignore[no-untyped-def]
    bad = 0
    for block in prange((values.size + _BLOCK - 1) // _BLOCK):
        here = 0
        for i in range(block * _BLOCK, min(values.size, (block + 1) * _BLOCK)):
            here += not np.isfinite(values[i])
        bad += here
    return bad


def configure(threads: int) -> None:
    """Choose OpenMP and the number of threads, compile for the common dtypes, and run each kernel once.

    Raises RuntimeError when OpenMP's library is missing (package libgomp1 in slim images).
    """
    numba.config.THREADING_LAYER = "omp"
    try:
        numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
        for dtype in (np.float32, np.float64, np.int64):
            model = np.ones(3, dtype)
            sums = np.zeros(3)
            fold(sums, [model], [1.0])
            finish(model, sums, 1.0)
            count_not_finite(model)
    except ValueError as error:
        raise RuntimeError(f"the aggregation kernels cannot start: {error}") from error
    if numba.threading_layer() != "omp":
        raise RuntimeError(f"expected OpenMP threads, got '{numba.threading_layer()}': install libgomp1")


def fold(sums: Sums, models: Sequence[Array], weights: Sequence[float]) -> None:
    """Add `weights[k] * models[k]` to `sums`, in passes of up to eight models.

    `sums`: float64, shape (n,). `models`: flat segments of one dtype, shape (n,). Weights are finite and not negative.
    """
    for start in range(0, len(models), FUSED):
        batch = [_computable(model) for model in models[start : start + FUSED]]
        batch_weights = [float(weight) for weight in weights[start : start + FUSED]]
        # A short batch repeats its first model at weight zero: those reads hit the cache, and one compiled kernel a
        # dtype serves every count. Finite input is a precondition, as zero times infinity is not zero.
        padding = FUSED - len(batch)
        _fold(sums, *batch, *([batch[0]] * padding), tuple(batch_weights + [0.0] * padding))


def finish(out: Array, sums: Sums, total: float) -> None:
    """Write the weighted mean `sums / total` to `out`, shape (n,), in its own dtype; integers are rounded once, ties to
    even, and booleans are the majority's."""
    if out.dtype == np.bool_:
        out[...] = sums / total > 0.5
    elif out.dtype == np.float16:
        out[...] = sums / total  # numba has no float16 on CPUs
    elif np.issubdtype(out.dtype, np.integer):
        _divide_and_round(out, sums, total)
    else:
        _divide(out, sums, total)


def count_not_finite(values: Array) -> int:
    """How many elements of a flat segment are NaN or infinite."""
    if not np.issubdtype(values.dtype, np.floating):
        return 0
    return int(_count_not_finite(_computable(values)))


def _computable(values: Array) -> Array:
    """The same numbers in a dtype that numba knows."""
    if values.dtype == np.float16:
        return values.astype(np.float32)
    if values.dtype == np.bool_:
        # Any byte may have come from the wire; whatever is not 0 is one vote.
        return (values.view(np.uint8) != 0).view(np.uint8)
    return values

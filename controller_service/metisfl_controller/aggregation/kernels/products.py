"""Inner products of every two models, in one pass over them: what distances and norms are computed from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import take
from metisfl_controller.aggregation.kernels.folding import Source
from metisfl_controller.aggregation.kernels.readers import read_floats
from metisfl_controller.aggregation.kernels.schedule import Blockwise

PIECE = 1 << 15
"""Elements whose products are summed by one thread, one after the other: the pieces are added in their order, so that
the result does not depend on threads."""

_PARTIAL_BYTES = 1 << 26
"""Of the sums of pieces that are not added yet."""

_MATRICES = 4
"""Of K × K that there are beside those sums: the result, what is added to it, and from the result to distances."""

_SCRATCH_BYTES = 1 << 18
"""Of a block of all models as float64: in the level-2 cache, with room for what is read."""

_ROWS = 4
"""Scratch rows come in groups of this many; those beyond the models stay zero."""


@njit(nogil=True, fastmath={"contract", "reassoc"})
def _add_products(rows: Any, n: int, products: Any) -> None:
    """Add a block's products to the upper triangle: two rows by four at a time, which fit the registers."""
    for i in range(0, rows.shape[0], 2):
        a, b = rows[i][:n], rows[i + 1][:n]
        for j in range(i // _ROWS * _ROWS, rows.shape[0], _ROWS):
            p, q, r, s = rows[j][:n], rows[j + 1][:n], rows[j + 2][:n], rows[j + 3][:n]
            ap, aq, ar, as_ = 0.0, 0.0, 0.0, 0.0
            bp, bq, br, bs = 0.0, 0.0, 0.0, 0.0
            for e in range(n):
                ap += a[e] * p[e]
                aq += a[e] * q[e]
                ar += a[e] * r[e]
                as_ += a[e] * s[e]
                bp += b[e] * p[e]
                bq += b[e] * q[e]
                br += b[e] * r[e]
                bs += b[e] * s[e]
            products[i, j] += ap
            products[i, j + 1] += aq
            products[i, j + 2] += ar
            products[i, j + 3] += as_
            products[i + 1, j] += bp
            products[i + 1, j + 1] += bq
            products[i + 1, j + 2] += br
            products[i + 1, j + 3] += bs


@njit(nogil=True)
def _multiply_pieces(
    ticket: int,
    step: int,
    stop: int,
    kind: int,
    first: Any,
    second: Any,
    kept: int,
    base_kind: int,
    base: int,
    start: int,
    end: int,
    partial: Any,
) -> None:
    """Pieces `ticket` … `stop` of elements `start` … `end`; `partial` (pieces, rows, rows) is zero."""
    block = max(kinds.SCALE_BLOCK, _SCRATCH_BYTES // (8 * partial.shape[1]) // kinds.SCALE_BLOCK * kinds.SCALE_BLOCK)
    block = min(block, 512)
    rows = np.zeros((partial.shape[1], block))
    scratch = np.empty(block)
    while True:
        piece = take(ticket, step)
        if piece >= stop:
            return
        begin = start + piece * PIECE
        for at in range(begin, min(end, begin + PIECE), block):
            n = min(block, end - at, begin + PIECE - at)
            origin = scratch[:n]
            if base:
                read_floats(base_kind, base, base, 0, at, origin)
            for k in range(first.size):
                row = rows[k][:n]
                read_floats(kind, first[k], second[k], kept, at, row)
                if base:
                    for e in range(n):
                        row[e] -= origin[e]
            _add_products(rows, n, partial[piece])


@njit(nogil=True, cache=True)
def _multiply_alone(*arguments):  # type: ignore[no-untyped-def]
    _multiply_pieces(*arguments)


@njit(parallel=True, nogil=True, cache=True)
def _multiply_together(workers, *arguments):  # type: ignore[no-untyped-def]
    for _ in prange(workers):
        _multiply_pieces(*arguments)


_MULTIPLY = Blockwise(_multiply_alone, _multiply_together)


def add_products(
    products: NDArray[np.float64], source: Source, start: int, stop: int, *, base: NDArray[Any] | None = None
) -> None:
    """Add to `products` (K, K) the inner products of K models' elements `start` … `stop`, computed in float64.

    `base`, of the dtype that whole models have, is subtracted from each first; without one they are differences as they
    are. `start` is a multiple of 64; weights do not matter. To be the same to the bit, a sum over calls takes ranges
    cut at multiples of PIECE. Relative to |x|·|y| the error of a product is at most 2^-53 times the number of elements,
    and in practice that number's square root. About K² / 2 multiplications an element.
    """
    models = source.first.size
    rows = -(-models // _ROWS) * _ROWS
    at_once = max(1, _PARTIAL_BYTES // (8 * max(1, rows * rows)))
    for begin in range(start, stop, at_once * PIECE):
        end = min(stop, begin + at_once * PIECE)
        pieces = -(-(end - begin) // PIECE)
        partial = np.zeros((pieces, rows, rows))
        arguments = _arguments(source, base, begin, end, partial)
        _MULTIPLY.run(0, pieces, 1, (end - begin) * models * max(1, models // 8), *arguments)
        for each in partial:
            upper = np.triu(each[:models, :models])
            products += upper + np.triu(upper, 1).T


def nbytes(models: int, elements: int) -> int:
    """Memory for the inner products of so many models, a range of at most so many elements at a time, and for the
    distances that are made of them."""
    rows = -(-models // _ROWS) * _ROWS
    matrix = 8 * rows * rows
    pieces = -(-elements // PIECE)
    return max(matrix, min(_PARTIAL_BYTES, pieces * matrix)) + _MATRICES * matrix


def _arguments(
    source: Source, base: NDArray[Any] | None, start: int, end: int, partial: NDArray[np.float64]
) -> tuple[Any, ...]:
    base_kind, address = (kinds.NOTHING, 0) if base is None else (kinds.kind_of_dtype(base.dtype), base.ctypes.data)
    return (source.kind, source.first, source.second, source.kept, base_kind, address, start, end, partial)


def compile_all() -> None:
    nothing = Source.of(kinds.FLOAT32, [], [])
    _MULTIPLY.compile(*_arguments(nothing, None, 0, 0, np.zeros((0, _ROWS, _ROWS))))

"""Weighted sums of uploads, one flat float64 array for each segment of the layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.layout import Buffer
from metisfl.wire.segments import EncodedSegment
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.folding import Source, finish, fold
from metisfl_controller.aggregation.mapped import tiles

_PIECE = 1 << 18
"""Elements whose magnitudes are looked at together, 1 MiB of single precision."""


class Term(NamedTuple):
    """One upload's part in a sum: weight · content."""

    content: Buffer
    weight: float


class SegmentSums:
    """Running sums of one segment, shape (elements,). Terms are added in the order given, one after the other; how they
    are divided over calls does not change a bit."""

    def __init__(self, encoded: EncodedSegment, allocate: Callable[[int], Buffer]) -> None:
        """`encoded`: how terms hold the segment. `allocate` may raise OSError."""
        self.encoded = encoded
        self.values = allocate(8 * encoded.segment.elements).view(np.float64)
        self.empty = True
        """The sums are 0, whatever is in their memory."""

    def add(self, terms: Sequence[Term]) -> None:
        """Several at once cost less than one by one."""
        if not terms:
            return
        source, planes = _source(self.encoded, terms)
        for start, stop in tiles(self.values.size, read=planes, written=[self.values]):
            fold(self.values, source, start, stop, empty=self.empty)
        self.empty = False

    def mean(
        self, terms: Sequence[Term], divisor: float, out: NDArray[Any], base: NDArray[Any] | None, share: float
    ) -> None:
        """(sums + terms) / divisor + share · base into `out`, rounded once, in one pass; the sums stay as they are.

        `out` and `base` have shape (elements,) and the segment's dtype; `base` is for floating point. Raises ValueError
        when a result is not finite.
        """
        source, planes = _source(self.encoded, terms)
        added = base if share else None
        bad = 0
        for start, stop in tiles(self.values.size, read=[self.values, *planes, added], written=[out]):
            bad += finish(
                self.values, source, start, stop, empty=self.empty, total=divisor, out=out, base=added, share=share
            )
        require_finite(bad, out)


def write_scaled(
    encoded: EncodedSegment, content: Buffer, scale: float, out: NDArray[Any], base: NDArray[Any], share: float
) -> None:
    """scale · content + share · base into `out`, for a segment of floating point: what an upload stands for. Raises
    ValueError when a result is not finite."""
    nothing = np.empty(0)
    source, planes = _source(encoded, [Term(content, scale)])
    bad = 0
    for start, stop in tiles(out.size, read=[base, *planes], written=[out]):
        bad += finish(nothing, source, start, stop, empty=True, total=1.0, out=out, base=base, share=share)
    require_finite(bad, out)


def largest_of(values: NDArray[Any]) -> float:
    """The largest |x| of a segment, shape (elements,), of finite values; 0 when it is empty."""
    largest = 0.0
    for start, stop in tiles(values.size, read=[values], tile=_PIECE):
        largest = max(largest, _largest_of(values[start:stop]))
    return largest


def _largest_of(piece: NDArray[Any]) -> float:
    if np.issubdtype(piece.dtype, np.integer) or piece.dtype == np.bool_:
        return float(max(abs(int(piece.max())), abs(int(piece.min()))))
    # Without their signs, floats are in the order of their bits; NumPy compares integers of any width fast.
    bits = np.dtype(f"u{piece.dtype.itemsize}")
    magnitude = bits.type(np.iinfo(bits).max >> 1)
    return float((piece.view(bits) & magnitude).max().reshape(1).view(piece.dtype)[0])


def _source(encoded: EncodedSegment, terms: Sequence[Term]) -> tuple[Source, list[NDArray[Any]]]:
    models = [kinds.planes(encoded, term.content) for term in terms]
    source = Source.of(kinds.kind_of(encoded), models, [term.weight for term in terms])
    return source, [plane for model in models for plane in model]


def require_finite(bad: int, out: NDArray[Any]) -> None:
    """Raises ValueError when `bad` elements that were written to `out` are not finite."""
    if bad:
        raise ValueError(
            f"{bad} values of the new model are beyond the range of their dtype {out.dtype}: have the learners' "
            "weights diverged?"
        )

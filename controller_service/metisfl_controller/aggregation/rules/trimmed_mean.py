"""Coordinate-wise trimmed mean.

    w_{t+1}[i] = mean of w_(b)[i] … w_(K−b−1)[i], the sorted values of coordinate i without the b smallest and the b
    largest                                              (Yin et al. 2018, arXiv 1803.01498, definition 2)

b = min(⌈β · K⌉, ⌊(K − 1) / 2⌋): enough for a share β of attackers, and never all values. Every tensor takes part;
integers are rounded once, and booleans follow the majority of the values that are left.

Weights do not matter. Parameter: `trimmedMean.fraction`, β, below 0.5. Breakdown point: b attackers; each coordinate
then stays between the smallest and the largest honest value. Without attackers the error is smaller than the median's.
Cost: one pass, and about K · log2(K)² / 4 comparisons an element, eight at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.aggregation.gathered import Gathered
from metisfl_controller.aggregation.rules.gathering import GatheringRule


class TrimmedMean(GatheringRule):
    """Sums are of float64, so that K values are within K · 2^-53 · max |x| of their mean before it is rounded."""

    def __init__(
        self,
        encoding: Encoding,
        *,
        fraction: Decimal,
        allocate: Callable[[int], Buffer] = aligned_zeros,
    ) -> None:
        """`fraction`: β, 0 ≤ β < 0.5."""
        super().__init__(encoding, allocate=allocate)
        self._fraction = fraction

    def aggregate(self, uploads: Gathered, weights: Sequence[float], model: Buffer) -> None:
        trimmed = trimmed_on_each_side(self._fraction, len(uploads))
        uploads.mean_of_ranks(trimmed, len(uploads) - trimmed, model, uploads.encoding.segments)


def trimmed_on_each_side(fraction: Decimal, count: int) -> int:
    """b for `count` uploads."""
    return min(math.ceil(fraction * count), (count - 1) // 2)

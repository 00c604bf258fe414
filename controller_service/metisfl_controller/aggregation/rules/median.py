"""Coordinate-wise median.

    w_{t+1}[i] = median_k w_k[i]                        (Yin et al. 2018, arXiv 1803.01498, definition 1)

Of an even number of values the median is the mean of the middle two; integers are rounded to nearest, ties to even, and
booleans follow the majority. Every tensor takes part. Updates lead to the same: w_t + median_k u_k.

Weights do not matter. Parameters: none. Breakdown point: fewer than K / 2 attackers; each coordinate then stays between
the smallest and the largest honest value.
Cost: one pass, and about K · log2(K)² / 4 comparisons an element, eight at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from metisfl.wire.layout import Buffer
from metisfl_controller.aggregation.gathered import Gathered
from metisfl_controller.aggregation.rules.gathering import GatheringRule


class Median(GatheringRule):
    """Order statistics in the dtype of the uploads' values, float32 or float64; exact but for the final rounding.
    Integers beyond 2^53 are rounded to float64 first."""

    def aggregate(self, uploads: Gathered, weights: Sequence[float], model: Buffer) -> None:
        uploads.median(model, uploads.encoding.segments)

"""Bulyan: Krum chooses, then a trimmed mean around the median decides each coordinate.

    1. θ = K − 2f updates are chosen one by one, each the Krum of those not chosen yet.
    2. w_{t+1}[i] = w_t[i] + mean of the β = θ − 2f chosen values of coordinate i that are closest to their median
                                                          (El Mhamdi et al. 2018, arXiv 1802.07927, section 4)

Krum alone lets an attacker hide a large change of one coordinate in the distance of many; the second step bounds each
by its neighbours. Distances are over all trainable floating-point tensors together; all other tensors take the
coordinate median over all uploads. Of values equally close to the median the smaller counts.

Weights do not matter. Parameter: `byzantine`, f, attackers to withstand, with K ≥ 4f + 3. Breakdown point: f attackers;
each coordinate then stays within the spread of honest values around their median.
Cost: one pass with K² / 2 multiplications an element, and one of order statistics over K − 2f uploads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.aggregation.gathered import Gathered
from metisfl_controller.aggregation.rules.distances import Floats, squared_distances
from metisfl_controller.aggregation.rules.gathering import GatheringRule
from metisfl_controller.aggregation.rules.krum import krum_order


class Bulyan(GatheringRule):
    """With f = 0 it is the mean."""

    compares: ClassVar[bool] = True

    def __init__(
        self,
        encoding: Encoding,
        *,
        byzantine: int,
        allocate: Callable[[int], Buffer] = aligned_zeros,
    ) -> None:
        super().__init__(encoding, allocate=allocate)
        self._byzantine = byzantine

    @property
    def minimum(self) -> int:
        return 4 * self._byzantine + 3

    def aggregate(self, uploads: Gathered, weights: Sequence[float], model: Buffer) -> None:
        chosen = bulyan_selection(squared_distances(uploads.inner_products()), self._byzantine)
        uploads.mean_around_median(chosen, len(chosen) - 2 * self._byzantine, model)
        uploads.carry_along(model)


def bulyan_selection(distances: Floats, byzantine: int) -> list[int]:
    """The θ = K − 2f updates of the first step, in the order in which they are chosen."""
    left = np.arange(len(distances))
    chosen = []
    while len(left) > 2 * byzantine:
        best = int(krum_order(distances[np.ix_(left, left)], byzantine)[0])
        chosen.append(int(left[best]))
        left = np.delete(left, best)
    return chosen

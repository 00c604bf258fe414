"""Krum and Multi-Krum: the updates that lie closest to most others.

    s(k) = Σ ‖u_k − u_j‖² over the K − f − 2 updates j ≠ k that are closest to u_k
    w_{t+1} = w_t + mean of the m updates with the smallest scores; Krum has m = 1
                                                          (Blanchard et al. 2017, NeurIPS, sections 3 and 4)

Distances are over all trainable floating-point tensors together; all other tensors take the coordinate median over all
uploads, as distances say nothing about them.

Weights do not matter. Parameters: `byzantine`, f, attackers to withstand, with K ≥ 2f + 3; for Multi-Krum `select`, m,
at most and by default K − f. Breakdown point: f attackers; what Krum chooses is then no further from the honest mean
than a constant times the honest updates' spread, which grows with √d.
Cost: one pass with K² / 2 multiplications an element, and one over what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.aggregation.gathered import Gathered
from metisfl_controller.aggregation.rules.distances import Floats, squared_distances
from metisfl_controller.aggregation.rules.gathering import GatheringRule

Integers = NDArray[np.int64]


class MultiKrum(GatheringRule):
    """The mean of the `select` best updates; `select` of None means all but f."""

    compares: ClassVar[bool] = True

    def __init__(
        self,
        encoding: Encoding,
        *,
        byzantine: int,
        select: int | None = None,
        allocate: Callable[[int], Buffer] = aligned_zeros,
    ) -> None:
        super().__init__(encoding, allocate=allocate)
        self._byzantine = byzantine
        self._select = select

    @property
    def minimum(self) -> int:
        return 2 * self._byzantine + 3

    def aggregate(self, uploads: Gathered, weights: Sequence[float], model: Buffer) -> None:
        count = len(uploads) - self._byzantine
        if self._select is not None:
            count = min(count, self._select)
        order = krum_order(squared_distances(uploads.inner_products()), self._byzantine)
        chosen = np.zeros(len(uploads))
        chosen[order[:count]] = 1.0
        uploads.combine(chosen, float(count), model)
        uploads.carry_along(model)


class Krum(MultiKrum):
    """The one best update, as it is: what its learner sent is not mixed with anything."""

    def __init__(
        self,
        encoding: Encoding,
        *,
        byzantine: int,
        allocate: Callable[[int], Buffer] = aligned_zeros,
    ) -> None:
        super().__init__(encoding, byzantine=byzantine, select=1, allocate=allocate)


def krum_order(distances: Floats, byzantine: int) -> Integers:
    """Positions of updates by their scores, best first, from squared distances (K, K); at least one neighbour counts.

    Two that are each other's nearest have equal scores when one neighbour counts: then the sum of all distances
    decides, and the position only if that is the same as well.
    """
    neighbours = max(1, len(distances) - byzantine - 2)
    # The smallest of each row is the update's distance to itself.
    scores = np.sort(distances, axis=1)[:, 1 : neighbours + 1].sum(axis=1)
    order: Integers = np.lexsort((distances.sum(axis=1), scores))
    return order

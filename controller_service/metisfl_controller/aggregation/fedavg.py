"""FedAvg: the mean of the learners' models, weighted by their training examples.

    w_{t+1} = Σ_k n_k · w_k / Σ_k n_k        (McMahan et al. 2017, arXiv 1602.05629, algorithm 1)

Every tensor takes part, trainable or not: running means are averaged like weights, integers are rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metisfl.wire.layout import Buffer, Layout
from metisfl_controller.aggregation import kernels


class FedAvg:
    """Running weighted sums of one round, in float64, a flat array of shape (elements,) per segment."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._sums = [np.zeros(segment.elements) for segment in layout.segments]
        self._total = 0.0

    @property
    def total_weight(self) -> float:
        return self._total

    def reset(self) -> None:
        for sums in self._sums:
            sums.fill(0.0)
        self._total = 0.0

    def fold(self, models: Sequence[Buffer], weights: Sequence[float]) -> None:
        """Add models, each a flat buffer of the layout, with their weights; they may be reused afterwards."""
        for segment, sums in zip(self._layout.segments, self._sums, strict=True):
            kernels.fold(sums, [segment.of(model) for model in models], weights)
        self._total += sum(weights)

    def finish(self) -> Buffer:
        """The weighted mean as a new buffer. Raises ValueError when nothing of positive weight was folded, or when
        weighted sums left the range of float64 (which only float64 tensors can make happen)."""
        if not self._total > 0:
            raise ValueError("there is nothing to average: no update carried a positive weight")
        model = self._layout.allocate()
        for segment, sums in zip(self._layout.segments, self._sums, strict=True):
            if segment.dtype == np.float64 and kernels.count_not_finite(sums):
                raise ValueError("the weighted sum of a tensor is beyond float64: have the learners' weights diverged?")
            kernels.finish(segment.of(model), sums, self._total)
        return model

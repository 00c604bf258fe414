"""CenteredClip: the mean of updates, each shortened to the radius τ around the centre, which moves with them.

    v ← v + Σ_k (u_k − v) · min(1, τ / ‖u_k − v‖) / K,  from v = 0,  w_{t+1} = w_t + v
                                                (Karimireddy, He, Jaggi 2021, arXiv 2012.10333, section 4)

v = 0 is the model that the round started from. Every iterate is in the span of the updates, and its distances follow
from their inner products (`Span`), so iterations read no upload. Without a radius given, τ is the median distance to
the centre, anew in each iteration, so that it needs no tuning to a model's size and learning rate; that is ours and not
the paper's.

Norms are over all trainable floating-point tensors together; all other tensors take the coordinate median over all
uploads. Weights do not matter. Parameters: `centeredClip.radius`, τ, and `centeredClip.iterations`. Breakdown point:
fewer than K / 2 attackers; one iteration lets f of them move the centre by no more than f · τ / K.
Cost: two passes, the first with K² / 2 multiplications an element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.aggregation.gathered import Gathered
from metisfl_controller.aggregation.rules.distances import Floats, Span
from metisfl_controller.aggregation.rules.gathering import GatheringRule


class CenteredClip(GatheringRule):
    """With a radius beyond every distance, and one iteration, it is the unweighted mean."""

    compares: ClassVar[bool] = True

    def __init__(
        self,
        encoding: Encoding,
        *,
        iterations: int,
        radius: float | None = None,
        allocate: Callable[[int], Buffer] = aligned_zeros,
    ) -> None:
        """`radius`: τ > 0, in the unit of the updates' norms; None for the median distance."""
        super().__init__(encoding, allocate=allocate)
        self._iterations = iterations
        self._radius = radius

    def aggregate(self, uploads: Gathered, weights: Sequence[float], model: Buffer) -> None:
        coefficients = centered_clip(Span(uploads.inner_products()), self._radius, self._iterations)
        uploads.combine(coefficients, 1.0, model)
        uploads.carry_along(model)


def centered_clip(span: Span, radius: float | None, iterations: int) -> Floats:
    """c (K,), not negative and of sum at most 1, with v = Σ_k c_k · u_k."""
    coefficients = np.zeros(len(span))
    for _ in range(iterations):
        distances = span.distances(coefficients)
        bound = float(np.median(distances)) if radius is None else radius
        # Those at the centre itself are within any radius.
        kept = np.divide(bound, distances, out=np.ones(len(span)), where=distances > bound)
        share = np.where(span.within, kept, 0.0) / len(span)
        coefficients = (1.0 - share.sum()) * coefficients + share
    return coefficients

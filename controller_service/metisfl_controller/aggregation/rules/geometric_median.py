"""Geometric median of the updates (RFA, robust federated aggregation).

    v = argmin_v Σ_k p_k · ‖u_k − v‖,  w_{t+1} = w_t + v   (Pillutla, Kakade, Harchaoui 2019, arXiv 1912.13445)

by the smoothed Weiszfeld algorithm (their algorithm 2): v ← Σ_k β_k · u_k / Σ_k β_k, β_k = p_k / max(ν, ‖u_k − v‖).
Every iterate is a weighted mean of the updates, and its distances follow from their inner products (`Span`), so
iterations read no upload. They begin at the mean of the updates shortened to their median norm: unlike the plain mean,
no attacker can move that far, and unlike the base, no attacker can sit on it, where iterations would stick.

Norms are over all trainable floating-point tensors together; all other tensors take the coordinate median over all
uploads. Weights p_k are those of `aggregation.weighting`; with Participants no learner can claim more than one voice.
Parameters: `geometricMedian.iterations`, `geometricMedian.smoothing`, ν. Breakdown point: attackers with less than half
of the weight; v then stays within a constant times the largest distance of an honest update to the honest mean.
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


class GeometricMedian(GatheringRule):
    """As exact as its iterations: each brings the iterate closer to the minimum, which is not waited for."""

    compares: ClassVar[bool] = True

    def __init__(
        self,
        encoding: Encoding,
        *,
        iterations: int,
        smoothing: float,
        allocate: Callable[[int], Buffer] = aligned_zeros,
    ) -> None:
        """`smoothing`: ν > 0, in the unit of the updates' norms."""
        super().__init__(encoding, allocate=allocate)
        self._iterations = iterations
        self._smoothing = smoothing

    def aggregate(self, uploads: Gathered, weights: Sequence[float], model: Buffer) -> None:
        span = Span(uploads.inner_products())
        found = weiszfeld(span, np.array(weights), self._iterations, self._smoothing)
        uploads.combine(found, float(found.sum()), model)
        uploads.carry_along(model)


def weiszfeld(span: Span, weights: Floats, iterations: int, smoothing: float) -> Floats:
    """β (K,), not negative; v is Σ_k β_k · u_k / Σ_k β_k. Raises ValueError when no norm is in the range of float64."""
    if not span.within.any():
        raise ValueError("no update has a norm within the range of float64: have the learners' weights diverged?")
    norms = span.distances(np.zeros(len(span)))
    bound = float(np.median(norms))
    shortened = np.minimum(1.0, bound / np.maximum(norms, smoothing))
    coefficients: Floats = np.where(span.within, weights * shortened, 0.0) / weights.sum()
    beta = coefficients
    for _ in range(iterations):
        beta = np.where(span.within, weights / np.maximum(span.distances(coefficients), smoothing), 0.0)
        coefficients = beta / beta.sum()
    return beta

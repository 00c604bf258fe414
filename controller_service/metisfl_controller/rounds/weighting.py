"""How much each learner's update counts: its weight w_k in the mean Σ w_k · x_k / Σ w_k, from what it did for it.

One pure function for each value of `spec.aggregation.weighting`; all give a positive, finite number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from metisfl.spec.aggregation import Weighting
from metisfl_controller.rounds.work import Work

Weigh = Callable[[Work], float]


def training_examples(work: Work) -> float:
    """w_k = n_k, the size of the learner's training data (FedAvg, arXiv 1602.05629)."""
    return float(work.examples)


def completed_batches(work: Work) -> float:
    """w_k = the optimiser steps it took, so that one which was given time for more of them counts for more."""
    return float(work.batches)


def participants(work: Work) -> float:
    """w_k = 1: every learner counts the same, however much data it has."""
    return 1.0


WEIGHTINGS: Mapping[Weighting, Weigh] = {
    Weighting.TRAINING_EXAMPLES: training_examples,
    Weighting.COMPLETED_BATCHES: completed_batches,
    Weighting.PARTICIPANTS: participants,
}

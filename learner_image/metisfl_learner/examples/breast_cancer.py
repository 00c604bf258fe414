"""Breast cancer, Wisconsin diagnostic: 569 tumours, 30 measurements each, benign or malignant; from scikit-learn.

Hospitals of different size train a logistic regression together. A fifth of the tumours, stratified by diagnosis, is
held out before anything else and never trained on. The others are divided in proportion to `shares`, the held-out ones
evenly, so that the example-weighted mean over all hospitals is the accuracy on the whole held-out set.

Each hospital standardises with the means and standard deviations of *its own training examples*, and applies these to
its held-out ones. So no statistic of held-out data enters the model, and none of a hospital's data leaves it.

Parameters: `shares` (relative sizes, comma-separated, one for each hospital; equal by default), `l2` (weight decay,
default 0.001), `seed` (0).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.datasets import load_breast_cancer

from metisfl_learner.adapters.numpy import NumpyLearner
from metisfl_learner.learner import Array, LearnerContext, ParameterError, Weights
from metisfl_learner.partitioning import held_out_split, iid


class BreastCancerLearner(NumpyLearner):
    """Logistic regression, p(benign) = σ(x·w + b). Inputs: float32 of shape (n, 30); targets: 0 or 1, shape (n,)."""

    def __init__(self, context: LearnerContext) -> None:
        seed = context.integer("seed", 0)
        self._l2 = context.number("l2", 0.001)
        data = load_breast_cancer()
        split = held_out_split(data.target, fraction=0.2, seed=seed)
        index, count = context.partition.index, context.partition.count
        mine = split.train[iid(len(split.train), index, count, seed, _shares(context))]
        held_out = split.test[iid(len(split.test), index, count, seed)]
        mean, deviation = data.data[mine].mean(axis=0), data.data[mine].std(axis=0)
        features = ((data.data - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)
        targets = data.target.astype(np.float32)
        super().__init__(
            context,
            weights={"weight": np.zeros(features.shape[1], np.float32), "bias": np.zeros((), np.float32)},
            train=(features[mine], targets[mine]),
            test=(features[held_out], targets[held_out]),
        )

    def gradient(self, weights: Mapping[str, Array], inputs: Array, targets: Array) -> Mapping[str, Array]:
        error = _sigmoid(_logits(weights, inputs)) - targets
        return {
            "weight": inputs.T @ error / len(targets) + self._l2 * weights["weight"],
            "bias": error.mean(),
        }

    def measure(self, weights: Weights, inputs: Array, targets: Array) -> Mapping[str, float]:
        logits = _logits(weights, inputs).astype(np.float64)
        # log(1 + exp(-z)) for the true class, without overflow.
        loss = np.logaddexp(0, np.where(targets > 0.5, -logits, logits)).mean()
        return {"accuracy": float(((logits > 0) == (targets > 0.5)).mean()), "loss": float(loss)}


def _logits(weights: Mapping[str, Array], inputs: Array) -> Array:
    logits: Array = inputs @ weights["weight"] + weights["bias"]
    return logits


def _sigmoid(logits: Array) -> Array:
    probability: Array = 0.5 * (1 + np.tanh(0.5 * logits))
    return probability


def _shares(context: LearnerContext) -> list[float] | None:
    text = context.parameters.get("shares")
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ParameterError(f"parameter shares is '{text}'; it must be numbers separated by commas") from None

"""A learner that fits a line; parameters make it slow, wrong or of another shape."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from metisfl_learner import Evaluation, Learner, LearnerContext, TrainingResult, TrainingTask, Weights


class LineLearner(Learner):
    """y = 3 x + 1, each learner from its own points."""

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        points = np.random.default_rng(context.partition.index)
        self.x = points.normal(size=(60, context.integer("width", 1))).astype(np.float32)
        self.y = (3 * self.x.sum(axis=1) + 1).astype(np.float32)
        self.train_examples, self.test_examples = 48, 12

    def initial_weights(self) -> dict[str, Any]:
        return {"slope": np.zeros(self.x.shape[1], np.float32), "offset": np.zeros(1, np.float32)}

    def train(self, weights: Weights, task: TrainingTask) -> TrainingResult:
        # As if it were much work.
        time.sleep(self.context.number("seconds", 0.0))
        if task.round >= self.context.integer("fails_in_round", 1_000_000):
            raise ValueError("these points lie on no line")
        slope, offset = weights["slope"].copy(), weights["offset"].copy()
        for batch in task.batches(48):
            time.sleep(self.context.number("batch_seconds", 0.0))
            error = self.x[batch] @ slope + offset - self.y[batch]
            slope -= task.learning_rate * 2 * (self.x[batch].T @ error) / len(batch)
            offset -= task.learning_rate * 2 * error.mean()
        return TrainingResult({"slope": slope, "offset": offset}, examples=48)

    def evaluate(self, weights: Weights) -> Evaluation:
        error = self.x[48:] @ weights["slope"] + weights["offset"] - self.y[48:]
        return Evaluation(12, {"loss": float((error**2).mean())})

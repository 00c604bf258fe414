"""Handwritten digits: 1,797 grey images of 8×8 pixels in ten classes, from scikit-learn (UCI Optical Recognition).

A fifth of the images, stratified by digit, is held out before anything else and never trained on. The other images are
divided among the learners with skewed classes, Dirichlet(`alpha`); the held-out ones are divided evenly, so that the
example-weighted mean over all learners is the accuracy on the whole held-out set.

Parameters: `alpha` (default 0.5), `hidden` (units of the hidden layer, 64), `seed` (0), and `batchSeconds` (0): how
much longer each batch takes, to play a slow machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from metisfl_learner.adapters.torch import TorchLearner
from metisfl_learner.learner import Array, LearnerContext, TrainingResult, TrainingTask, Weights
from metisfl_learner.partitioning import dirichlet, held_out_split, iid

PIXELS = 64
CLASSES = 10
BRIGHTEST = 16.0


class DigitsLearner(TorchLearner):
    """A perceptron with one hidden layer. Inputs: float32 of shape (n, 64) in 0 … 1; targets: int64 of shape (n,)."""

    def __init__(self, context: LearnerContext) -> None:
        seed = context.integer("seed", 0)
        data = load_digits()
        split = held_out_split(data.target, fraction=0.2, seed=seed)
        index, count = context.partition.index, context.partition.count
        alpha = context.number("alpha", 0.5)
        # No fewer than a batch: a learner with a handful of images would only add noise.
        mine = split.train[dirichlet(data.target[split.train], index, count, alpha, seed, minimum=32)]
        held_out = split.test[iid(len(split.test), index, count, seed)]
        self._batch_seconds = context.number("batchSeconds", 0.0)
        torch.manual_seed(seed)
        super().__init__(
            context,
            model=perceptron(context.integer("hidden", 64)),
            train=_tensors(data.data[mine], data.target[mine]),
            test=_tensors(data.data[held_out], data.target[held_out]),
        )

    def train(self, weights: Weights, task: TrainingTask) -> TrainingResult:
        if self._batch_seconds > 0:
            told = {part.name: getattr(task, part.name) for part in fields(task)}
            task = SlowTask(**told, batch_seconds=self._batch_seconds)
        return super().train(weights, task)


@dataclass(frozen=True)
class SlowTask(TrainingTask):
    """A task whose every batch takes so much longer."""

    batch_seconds: float = 0.0

    def batches(self, examples: int) -> Iterator[NDArray[np.int64]]:
        for batch in super().batches(examples):
            time.sleep(self.batch_seconds)
            yield batch


def perceptron(hidden: int) -> nn.Module:
    """64 pixels → `hidden` rectified units → 10 classes."""
    return nn.Sequential(nn.Linear(PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


def _tensors(images: Array, digits: Array) -> tuple[Tensor, Tensor]:
    return torch.tensor(images / BRIGHTEST, dtype=torch.float32), torch.tensor(digits, dtype=torch.int64)

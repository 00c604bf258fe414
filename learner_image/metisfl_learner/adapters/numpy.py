"""Mini-batch gradient descent in plain NumPy, for models whose gradient you can write down."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metisfl_learner.learner import (
    Array,
    Capability,
    Evaluation,
    Learner,
    LearnerContext,
    TrainingResult,
    TrainingTask,
    Weights,
)

Examples = tuple[Array, Array]
"""Inputs and targets, of the same length along their first axis."""


class NumpyLearner(Learner):
    """Give it the initial weights and the data, and define `gradient` and `measure`; the loop is here, FedProx's term
    and SCAFFOLD's correction included.

    `train` and `test` are (inputs, targets); `test` may have length 0. Raises ValueError when inputs and targets differ
    in length or there is nothing to train on.
    """

    supports = (Capability.PROXIMAL_TERM, Capability.CONTROL_VARIATES)

    def __init__(self, context: LearnerContext, weights: Weights, train: Examples, test: Examples) -> None:
        super().__init__(context)
        self._weights = weights
        self._train = train
        self._test = test
        self.train_examples = _length("train", train)
        self.test_examples = _length("test", test)
        if self.train_examples == 0 and not context.evaluator:
            raise ValueError("there are no training examples")

    @abstractmethod
    def gradient(self, weights: Mapping[str, Array], inputs: Array, targets: Array) -> Mapping[str, Array]:
        """Gradient of the mean loss of one batch, for every trainable tensor, in its shape."""

    @abstractmethod
    def measure(self, weights: Weights, inputs: Array, targets: Array) -> Mapping[str, float]:
        """Metrics as means over the given examples, such as {"accuracy": …, "loss": …}."""

    def initial_weights(self) -> Weights:
        return self._weights

    def train(self, weights: Weights, task: TrainingTask) -> TrainingResult:
        inputs, targets = self._train
        model = {name: np.array(array) for name, array in weights.items()}
        for batch in task.batches(self.train_examples):
            for name, gradient in self.gradient(model, inputs[batch], targets[batch]).items():
                if task.proximal_mu:
                    gradient = gradient + task.proximal_mu * (model[name] - weights[name])
                if task.correction is not None and name in task.correction:
                    gradient = gradient + task.correction[name]
                model[name] -= _step(task.learning_rate, gradient, model[name])
        metrics = {f"train_{name}": value for name, value in self.measure(model, inputs, targets).items()}
        return TrainingResult(model, examples=self.train_examples, metrics=metrics)

    def evaluate(self, weights: Weights) -> Evaluation:
        inputs, targets = self._test
        return Evaluation(examples=self.test_examples, metrics=self.measure(weights, inputs, targets))


def _step(learning_rate: float, gradient: Array, like: Array) -> NDArray[np.generic]:
    return (learning_rate * np.asarray(gradient)).astype(like.dtype, copy=False)


def _length(name: str, examples: Examples) -> int:
    inputs, targets = examples
    if len(inputs) != len(targets):
        raise ValueError(f"{name} has {len(inputs)} inputs and {len(targets)} targets")
    return len(inputs)

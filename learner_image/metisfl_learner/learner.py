"""What users subclass: `Learner`, and the values that go in and out of it.

Arrays are NumPy at this border, whatever framework is behind it. A model is a mapping of tensor names to arrays; every
learner of a federation must have the same names, dtypes and shapes in the same order.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metisfl.logs import ContextLogger

Array = NDArray[Any]
Weights = Mapping[str, Array]
"""Tensor names to arrays. Supported dtypes: float16/32/64, bfloat16 (of ml_dtypes), int8/16/32/64, uint8, bool."""


class TaskCancelled(BaseException):
    """The controller does not want this task's result any more. Let it pass.

    It is not an Exception, so that a learner's own `except Exception` does not swallow it.
    """


class Capability(StrEnum):
    """What a learner's code can do beyond plain training, and `spec` may ask for."""

    PROXIMAL_TERM = "ProximalTerm"
    """Training with `TrainingTask.proximal_mu`."""

    CONTROL_VARIATES = "ControlVariates"
    """Training with `TrainingTask.correction`."""


class ParameterError(ValueError):
    """A parameter of the Federation that a learner cannot use."""


@dataclass(frozen=True)
class PartitionPlace:
    """Which share of a data set is this learner's: `index` of 0 … `count` - 1."""

    index: int
    count: int


@dataclass(frozen=True)
class LearnerContext:
    """What a learner knows about its place in the federation."""

    learner_id: str
    federation: str
    parameters: Mapping[str, str]
    """spec.learner.parameters, the group's own on top."""

    partition: PartitionPlace
    state_dir: Path | None
    """Folder that outlives the process, if there is one."""

    logger: ContextLogger
    evaluator: bool = False
    """It is only ever asked to evaluate: its training data may be empty. Its share is the whole of the data."""

    def integer(self, name: str, default: int) -> int:
        """A parameter as int. Raises ParameterError when it is not one."""
        text = self.parameters.get(name)
        try:
            return default if text is None else int(text)
        except ValueError:
            raise ParameterError(f"parameter {name} is '{text}'; it must be a whole number") from None

    def number(self, name: str, default: float) -> float:
        """A parameter as float. Raises ParameterError when it is not a finite number."""
        text = self.parameters.get(name)
        try:
            value = default if text is None else float(text)
        except ValueError:
            raise ParameterError(f"parameter {name} is '{text}'; it must be a number") from None
        if not np.isfinite(value):
            raise ParameterError(f"parameter {name} is '{text}'; it must be finite")
        return value

    @property
    def threads(self) -> int:
        """Threads that numerical libraries may use: parameter `threads`, by default 1.

        Learners often share a machine; if each took all cores they would slow each other down.
        """
        threads = self.integer("threads", 1)
        if threads < 1:
            raise ParameterError(f"parameter threads is '{threads}'; it must be at least 1")
        return threads


class Progress:
    """How far a task is and whether it is still wanted; shared between the learner's thread and the session."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self.fraction = 0.0

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()


@dataclass(frozen=True)
class TrainingTask:
    """One training task: what `spec.training` asks for, in the round it is for."""

    round: int
    epochs: int
    """Passes over the training examples; where `steps` is set, as many as these take, the last one perhaps in part."""

    batch_size: int
    learning_rate: float
    seed: int
    """The same for every learner of a round, another one in each round."""

    steps: int | None = None
    """Batches to train on, however many epochs that takes; None means to train for `epochs`."""

    proximal_mu: float = 0.0
    """FedProx (Li et al. 2018, arXiv 1812.06127): add proximal_mu / 2 · |w − w_received|² to the loss, and so
    proximal_mu · (w − w_received) to its gradient. Above 0 only for learners with Capability.PROXIMAL_TERM."""

    correction: Mapping[str, Array] | None = None
    """SCAFFOLD (arXiv 1910.06378): c − c_i, to be added to the gradient of every step; one array for each trainable
    floating-point tensor, in its shape, float32 or float64. Only for learners with Capability.CONTROL_VARIATES."""

    progress: Progress = field(default_factory=Progress)

    @property
    def cancelled(self) -> bool:
        """True once the result is not wanted any more."""
        return self.progress.cancelled

    def report(self, fraction: float) -> None:
        """Say how far training is, 0 … 1. Raises TaskCancelled once the result is not wanted any more."""
        if self.progress.cancelled:
            raise TaskCancelled
        self.progress.fraction = min(max(float(fraction), 0.0), 1.0)

    def batches(self, examples: int) -> Iterator[NDArray[np.int64]]:
        """Indices into `examples` examples, batch by batch: each epoch in a fresh order, the last batch of an epoch
        possibly smaller, until `steps` or all `epochs` are done. Reports progress before each batch, and so may raise
        TaskCancelled."""
        total = self.batch_count(examples)
        for number, batch in enumerate(islice(self._endless(examples), total)):
            self.report(number / total)
            yield batch

    def batch_count(self, examples: int) -> int:
        """How many batches `batches(examples)` yields."""
        return self.steps or self.epochs * -(-examples // self.batch_size)

    def passes(self, examples: int) -> float:
        """How many epochs `batches(examples)` takes, the last one perhaps in part."""
        whole, rest = divmod(self.batch_count(examples), -(-examples // self.batch_size))
        return whole + rest * self.batch_size / examples

    def _endless(self, examples: int) -> Iterator[NDArray[np.int64]]:
        order_of = np.random.default_rng(self.seed)
        while examples:
            order = order_of.permutation(examples)
            for start in range(0, examples, self.batch_size):
                yield order[start : start + self.batch_size]


@dataclass(frozen=True)
class TrainingResult:
    """What `Learner.train` returns."""

    weights: Weights
    """The trained model: the same names, dtypes and shapes as were given; finite."""

    examples: int
    """Training examples of this learner; its weight in the average. At least 1."""

    batches: int | None = None
    """Optimiser steps taken; by default what `TrainingTask.batches` makes of `examples`."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Finite numbers by name, such as the training loss."""


@dataclass(frozen=True)
class Evaluation:
    """What `Learner.evaluate` returns."""

    examples: int
    """Held-out examples the metrics are means over; their weight in the federation's mean. At least 1."""

    metrics: Mapping[str, float]
    """Finite numbers by name. Names match [A-Za-z_][A-Za-z0-9_]*; spec.termination.targetMetric refers to them."""


class Learner(ABC):
    """One participant of a federation; subclass it, or one of the adapters.

    It is constructed once, after the controller has told the learner its parameters and its share of the data. All
    methods run in one thread of their own, one after the other. Whatever they raise ends the process with a message,
    except TaskCancelled.
    """

    framework: ClassVar[str] = "numpy"
    """Shown to people."""

    supports: ClassVar[Collection[Capability]] = ()
    """What `train` can do beyond plain training. The controller refuses a learner that lacks what `spec` asks for."""

    train_examples: int
    """Set in the constructor: size of this learner's training data, at least 1; of no account in an evaluator."""

    test_examples: int
    """Set in the constructor: size of this learner's held-out data; with 0 it is never asked to evaluate, and cannot be
    an evaluator."""

    not_trainable: Collection[str] = ()
    """Names of tensors that are carried along but not optimised, such as running means."""

    def __init__(self, context: LearnerContext) -> None:
        self.context = context

    @abstractmethod
    def initial_weights(self) -> Weights:
        """The model before any training. Asked at least once, for its layout; the first learner's become version 0."""

    @abstractmethod
    def train(self, weights: Weights, task: TrainingTask) -> TrainingResult:
        """Train the given model on this learner's own data.

        `weights` belong to the caller and are read-only: copy what you change. Call `task.report` (or use
        `task.batches`) at least every few seconds, so that a task nobody waits for ends early.
        """

    @abstractmethod
    def evaluate(self, weights: Weights) -> Evaluation:
        """Measure the given model on this learner's held-out data. `weights` are read-only."""

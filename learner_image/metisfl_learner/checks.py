"""What a learner's code returns, checked before anything of it leaves the process."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire.layout import Buffer, Layout, LayoutError, is_float
from metisfl.wire.limits import MAX_METRIC_NAME, MAX_METRICS, METRIC_NAME
from metisfl_learner.learner import Evaluation, Learner, TrainingResult, TrainingTask, Weights

_METRIC_NAME = re.compile(METRIC_NAME)


class LearnerError(Exception):
    """The learner's code raised, or gave something that cannot be used; the message names what and where."""


@dataclass(frozen=True)
class Description:
    """What a learner says about itself in Ready."""

    layout: Layout
    train_examples: int
    test_examples: int


def describe(learner: Learner, weights: Weights, evaluator: bool = False) -> Description:
    """Layout and data sizes of a learner whose `initial_weights()` returned `weights`. An `evaluator` needs held-out
    data, a learner that trains needs training data. Raises LearnerError."""
    name = type(learner).__name__
    try:
        layout = Layout.of(_arrays("initial_weights()", weights), learner.not_trainable)
    except LayoutError as error:
        raise LearnerError(f"{name}.initial_weights(): {error}") from error
    pack(layout, "initial_weights()", weights)
    return Description(
        layout,
        train_examples=0 if evaluator else _size(learner, "train_examples", 1),
        test_examples=_size(learner, "test_examples", 1 if evaluator else 0),
    )


def pack(layout: Layout, source: str, weights: Weights) -> Buffer:
    """Weights as the layout's flat buffer. Raises LearnerError when they do not fit it or are not finite."""
    arrays = _arrays(source, weights)
    try:
        buffer = layout.pack(arrays)
    except LayoutError as error:
        raise LearnerError(f"{source} returned other weights than the model has: {error}") from error
    for name, array in arrays.items():
        if is_float(array.dtype):
            bad = array.size - int(np.count_nonzero(np.isfinite(array)))
            if bad:
                raise LearnerError(
                    f"{source} returned nan or infinity in {bad} of {array.size} values of tensor '{name}'; "
                    "a smaller training.learningRate may help"
                )
    return buffer


def training_report(result: TrainingResult, task: TrainingTask, seconds: float) -> pb.TrainingReport:
    """Everything of a training result but its weights. Raises LearnerError."""
    examples = _count("train()", "examples", result.examples, minimum=1)
    batches = task.batch_count(examples) if result.batches is None else result.batches
    return pb.TrainingReport(
        examples=examples,
        batches=_count("train()", "batches", batches, minimum=1),
        epochs=task.passes(examples),
        seconds=seconds,
        metrics=metrics("train()", result.metrics),
    )


def evaluation(result: Evaluation, task_id: str, version: int) -> pb.Evaluation:
    """An evaluation as it is sent. Raises LearnerError."""
    return pb.Evaluation(
        task_id=task_id,
        model_version=version,
        examples=_count("evaluate()", "examples", result.examples, minimum=1),
        metrics=metrics("evaluate()", result.metrics),
    )


def metrics(source: str, values: Mapping[str, float]) -> list[model_pb2.Metric]:
    """Named numbers, checked. Raises LearnerError."""
    if not isinstance(values, Mapping):
        raise LearnerError(f"{source} returned metrics of type {type(values).__name__}; expected names to numbers")
    if len(values) > MAX_METRICS:
        raise LearnerError(f"{source} returned {len(values)} metrics; at most {MAX_METRICS} are allowed")
    return [_metric(source, name, value) for name, value in values.items()]


def returned(source: str, value: object, expected: type) -> None:
    """Raise LearnerError unless a user's method returned what it should."""
    if not isinstance(value, expected):
        raise LearnerError(f"{source} returned {type(value).__name__}; it must return {expected.__name__}")


def _metric(source: str, name: str, value: float) -> model_pb2.Metric:
    if not isinstance(name, str) or len(name) > MAX_METRIC_NAME or not _METRIC_NAME.fullmatch(name):
        raise LearnerError(
            f"{source} named a metric {name!r}; a name is letters, digits and _, at most {MAX_METRIC_NAME} of them"
        )
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise LearnerError(f"{source} returned metric '{name}' as {type(value).__name__}; expected a number") from None
    if not math.isfinite(number):
        raise LearnerError(f"{source} returned metric '{name}' as {number}; it must be finite")
    return model_pb2.Metric(name=name, value=number)


def _arrays(source: str, weights: Weights) -> dict[str, np.ndarray[Any, Any]]:
    if not isinstance(weights, Mapping):
        raise LearnerError(f"{source} returned weights of type {type(weights).__name__}; expected names to arrays")
    return {str(name): np.asarray(array) for name, array in weights.items()}


def _size(learner: Learner, name: str, minimum: int) -> int:
    value = getattr(learner, name, None)
    if value is None:
        raise LearnerError(f"{type(learner).__name__} does not set {name}; its constructor must")
    return _count(type(learner).__name__, name, value, minimum)


def _count(source: str, name: str, value: Any, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise LearnerError(f"{source}: {name} is {value!r}; it must be a whole number of at least {minimum}")
    return int(value)

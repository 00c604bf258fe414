"""What happens in the learner's thread for each kind of task: call the user's code, check what comes back.

Nothing here knows of connections.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import threadpoolctl

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.codecs import CodecError
from metisfl.wire.layout import Buffer, LayoutError
from metisfl.wire.transport import LOSSLESS, Transport
from metisfl_learner import checks
from metisfl_learner.checks import Description, LearnerError
from metisfl_learner.keeping import InFile
from metisfl_learner.learner import (
    Evaluation,
    Learner,
    LearnerContext,
    ParameterError,
    Progress,
    TaskCancelled,
    TrainingResult,
    TrainingTask,
)
from metisfl_learner.loading import EntrypointError, construct, explain
from metisfl_learner.updates import Content, Stores, UpdateEncoder

T = TypeVar("T")


@dataclass(frozen=True)
class Trainee:
    """A learner that is ready for tasks."""

    learner: Learner
    description: Description
    encoder: UpdateEncoder


@dataclass(frozen=True)
class Received:
    """A downloaded version, decoded: a flat buffer of the layout, and the control section where there is one."""

    model: Buffer
    control: Buffer | None = None

    @property
    def variate(self) -> Buffer:
        """The control section of a federation that has one."""
        assert self.control is not None
        return self.control


@dataclass(frozen=True)
class Result:
    """A finished INITIALISE or TRAIN task; its content never changes any more, however often it is sent."""

    task_id: str
    base_version: int
    produces: int
    """The model version that this result goes into; once that exists, the result is of no use any more."""

    content: Content
    report: pb.TrainingReport


def prepare(
    entrypoint: str,
    learner_class: type[Learner],
    context: LearnerContext,
    transport: Transport = LOSSLESS,
    federation_uid: str = "",
) -> Trainee:
    """Construct a learner and describe it. Raises EntrypointError."""
    learner = construct(entrypoint, learner_class, context)
    try:
        # Libraries start with one thread per core. OpenMP keeps the limit per thread: this must run in the learner's.
        threadpoolctl.threadpool_limits(limits=context.threads)
        weights = _call("initial_weights()", learner.initial_weights)
        description = checks.describe(learner, weights, context.evaluator)
        stores = _stores(context, f"{federation_uid}/{context.learner_id}/{description.layout.digest}")
        return Trainee(learner, description, UpdateEncoder(transport, description.layout, stores))
    except (LearnerError, ParameterError, CodecError, LayoutError) as error:
        raise EntrypointError(f"entrypoint {entrypoint}: {error}") from error


def _stores(context: LearnerContext, owner: str) -> Stores:
    folder = context.state_dir
    if folder is None:
        return Stores()
    return Stores(
        residual=InFile(folder, "residual", np.float32, owner, context.logger),
        control=InFile(folder, "variate", np.uint8, owner, context.logger),
    )


def initialise(trainee: Trainee, task: pb.Task) -> Result:
    """The learner's own initial weights, as version 0. Raises LearnerError."""
    weights = _call("initial_weights()", trainee.learner.initial_weights)
    model = checks.pack(trainee.description.layout, "initial_weights()", weights)
    return Result(task.task_id, task.model_version, 0, trainee.encoder.whole(model), pb.TrainingReport())


def evaluate(trainee: Trainee, task: pb.Task, model: Buffer) -> pb.Evaluation:
    """Metrics of a downloaded model. Raises LearnerError."""
    if trainee.description.test_examples == 0:
        return pb.Evaluation(task_id=task.task_id, model_version=task.model_version)
    outcome = _call("evaluate()", lambda: trainee.learner.evaluate(_read_only(trainee, model)))
    checks.returned("evaluate()", outcome, Evaluation)
    return checks.evaluation(outcome, task.task_id, task.model_version)


def train(
    trainee: Trainee,
    task: pb.Task,
    received: Received,
    progress: Progress,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """A model trained from a downloaded one. Raises LearnerError, or TaskCancelled when `progress` was cancelled.

    The report's seconds are those of `Learner.train` alone: protocols plan by the time a batch takes.
    """
    control, model = trainee.encoder.control, received.model
    training = _training(trainee, task, progress)
    if control is not None:
        training = replace(training, correction=control.correction(received.variate))
    started = clock()
    outcome = _call("train()", lambda: trainee.learner.train(_read_only(trainee, model), training))
    checks.returned("train()", outcome, TrainingResult)
    report = checks.training_report(outcome, training, clock() - started)
    trained = checks.pack(trainee.description.layout, "train()", outcome.weights)
    del outcome  # so that its weights need not lie beside the encoded ones
    change = None
    if control is not None:
        change = control.change(
            task.task_id,
            trained,
            model,
            received.variate,
            version=task.model_version,
            steps=report.batches,
            rate=task.training.learning_rate,
        )
    content = trainee.encoder.trained(task.task_id, trained, model, change)
    return Result(task.task_id, task.model_version, task.model_version + 1, content, report)


def _training(trainee: Trainee, task: pb.Task, progress: Progress) -> TrainingTask:
    asked = task.training
    batches_an_epoch = -(-trainee.description.train_examples // asked.batch_size)
    return TrainingTask(
        round=task.round,
        epochs=-(-asked.steps // batches_an_epoch) if asked.steps else asked.epochs,
        batch_size=asked.batch_size,
        learning_rate=asked.learning_rate,
        seed=asked.seed,
        steps=asked.steps or None,
        proximal_mu=asked.proximal_mu,
        progress=progress,
    )


def _read_only(trainee: Trainee, model: Buffer) -> Mapping[str, Any]:
    views = trainee.description.layout.views(model)
    for view in views.values():
        view.flags.writeable = False
    return views


def _call(source: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except TaskCancelled:
        raise
    except BaseException as error:
        raise LearnerError(f"{source} raised {explain(error)}") from error

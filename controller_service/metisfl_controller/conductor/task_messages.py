"""The state machine's orders as messages of the wire."""

from __future__ import annotations

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.spec.training import TrainingSpec
from metisfl_controller.rounds.tasks import Kind, Order
from metisfl_controller.state.records import Outcome

_KINDS = {
    Kind.INITIALISE: pb.TASK_KIND_INITIALISE,
    Kind.TRAIN: pb.TASK_KIND_TRAIN,
    Kind.EVALUATE: pb.TASK_KIND_EVALUATE,
}


def task_message(
    order: Order, training: TrainingSpec, now: float, kind: pb.TaskKind.ValueType | None = None
) -> pb.Task:
    """An order at time `now`; `kind` is what is asked of the learner if that is not just the task."""
    steps = order.steps or training.steps or 0
    return pb.Task(
        task_id=str(order.task),
        kind=_KINDS[order.task.kind] if kind is None else kind,
        round=order.round,
        model_version=order.task.base_version,
        evaluate=order.evaluate,
        training=pb.Training(
            epochs=0 if steps else training.epochs_or_default,
            batch_size=training.batch_size,
            learning_rate=float(training.learning_rate),
            seed=order.round if order.seed is None else order.seed,
            steps=steps,
            proximal_mu=float(training.proximal_mu),
        )
        if order.task.kind is Kind.TRAIN
        else None,
        deadline_seconds=0.0 if order.deadline is None else max(0.001, order.deadline - now),
    )


def stop_message(outcome: Outcome) -> pb.Task:
    return pb.Task(kind=pb.TASK_KIND_STOP, reason=f"{outcome.state}: {outcome.message}")

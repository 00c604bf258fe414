"""What a learner's code returns is checked before it leaves the process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl_learner import Evaluation, Learner, LearnerContext, TaskCancelled, TrainingResult
from metisfl_learner.checks import LearnerError
from metisfl_learner.learner import Progress
from metisfl_learner.loading import EntrypointError
from metisfl_learner.work import Received, Trainee, evaluate, initialise, prepare, train

TASK = pb.Task(
    task_id="t",
    kind=pb.TASK_KIND_TRAIN,
    round=5,
    model_version=4,
    training=pb.Training(epochs=2, batch_size=3, learning_rate=0.5, seed=9),
)
Context = Callable[..., LearnerContext]


class Plain(Learner):
    """Returns what the class attributes say."""

    train_examples: Any = 10
    test_examples: Any = 5
    not_trainable = ("mean",)
    initial: Any = {"w": np.array([1, 2], np.float32), "mean": np.array(0.5, np.float64)}
    trained: Any = None
    evaluated: Any = Evaluation(5, {"accuracy": 0.5})

    def initial_weights(self) -> Any:
        return self.initial

    def train(self, weights: Any, task: Any) -> Any:
        self.task = task
        return self.trained or TrainingResult({name: array + 1 for name, array in weights.items()}, examples=10)

    def evaluate(self, weights: Any) -> Any:
        return self.evaluated


def ready(context: Context, **attributes: Any) -> Trainee:
    learner_class = type("Mine", (Plain,), attributes)
    return prepare("mine:Mine", learner_class, context())


def model_of(trainee: Trainee) -> Any:
    return trainee.description.layout.pack(Plain.initial)


def test_prepare_describes_the_learner(make_context: Context) -> None:
    description = ready(make_context).description
    assert (description.train_examples, description.test_examples) == (10, 5)
    assert [(t.name, t.dtype, t.shape, t.trainable) for t in description.layout.tensors] == [
        ("w", "float32", (2,), True),
        ("mean", "float64", (), False),
    ]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"train_examples": None}, "Mine does not set train_examples"),
        ({"train_examples": 0}, "train_examples is 0; it must be a whole number of at least 1"),
        ({"test_examples": 1.5}, "test_examples is 1.5"),
        ({"initial": {}, "not_trainable": ()}, "at least one tensor"),
        ({"initial": {"w": np.zeros(2, np.complex64)}, "not_trainable": ()}, "tensor 'w' has dtype complex64"),
        ({"initial": [1, 2]}, "weights of type list"),
        ({"initial": {"w": np.array([np.nan])}, "not_trainable": ()}, "nan or infinity in 1 of 1 values"),
        ({"not_trainable": ("spam",)}, "not trainable, but not in the model: \\['spam'\\]"),
        ({"initial_weights": lambda self: 1 / 0}, "initial_weights\\(\\) raised ZeroDivisionError"),
    ],
)
def test_unusable_learner_is_refused(make_context: Context, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(EntrypointError, match=message):
        ready(make_context, **attributes)


def test_an_evaluator_needs_held_out_examples_and_none_to_train_on(make_context: Context) -> None:
    context = replace(make_context(), evaluator=True)
    for unset in (None, 0):
        description = prepare("mine:Mine", type("Mine", (Plain,), {"train_examples": unset}), context).description
        assert (description.train_examples, description.test_examples) == (0, 5)
    with pytest.raises(EntrypointError, match="test_examples is 0; it must be a whole number of at least 1"):
        prepare("mine:Mine", type("Mine", (Plain,), {"test_examples": 0}), context)


def test_wrong_thread_count_is_refused(make_context: Context) -> None:
    with pytest.raises(EntrypointError, match="parameter threads is 'many'"):
        prepare("mine:Plain", Plain, make_context(threads="many"))


def test_train(make_context: Context) -> None:
    trainee = ready(make_context)
    result = train(trainee, TASK, Received(model_of(trainee)), Progress())
    views = trainee.description.layout.views(result.content.buffers[0])
    assert views["w"].tolist() == [2, 3]
    assert views["mean"] == 1.5
    assert result.content.checksums[0] == frames.section_checksum(result.content.buffers[0].data)
    assert result.content.kind == pb.UPLOAD_KIND_MODEL
    assert (result.base_version, result.produces) == (4, 5)
    assert (result.report.examples, result.report.batches, result.report.epochs) == (10, 8, 2)
    task = trainee.learner.task  # type: ignore[attr-defined]
    assert (task.round, task.epochs, task.batch_size, task.learning_rate, task.seed) == (5, 2, 3, 0.5, 9)


def test_steps_and_the_proximal_term_reach_the_learner(make_context: Context) -> None:
    trainee = ready(make_context)
    training = pb.Training(batch_size=3, learning_rate=0.5, seed=9, steps=6, proximal_mu=0.25)
    result = train(trainee, pb.Task(task_id="t", training=training), Received(model_of(trainee)), Progress())
    task = trainee.learner.task  # type: ignore[attr-defined]
    # Ten examples are four batches: six of them are an epoch and two batches of the second.
    assert (task.steps, task.epochs, task.proximal_mu) == (6, 2, 0.25)
    assert (result.report.batches, result.report.epochs) == (6, 1.6)


def test_seconds_are_those_of_training_alone(make_context: Context) -> None:
    now = [100.0]

    def slow(self: Any, weights: Any, task: Any) -> Any:
        now[0] += 12
        return TrainingResult({"w": np.zeros(2, np.float32), "mean": np.array(0.0)}, 10)

    def slow_to_evaluate(self: Any, weights: Any) -> Any:
        now[0] += 1000
        return Evaluation(5, {})

    trainee = ready(make_context, train=slow, evaluate=slow_to_evaluate)
    evaluate(trainee, TASK, model_of(trainee))
    report = train(trainee, TASK, Received(model_of(trainee)), Progress(), lambda: now[0]).report
    assert report.seconds == 12
    assert report.seconds / report.batches == 1.5


def test_given_weights_are_read_only(make_context: Context) -> None:
    def in_place(self: Any, weights: Any, task: Any) -> Any:
        weights["w"] += 1
        return TrainingResult(weights, 10)

    trainee = ready(make_context, train=in_place)
    with pytest.raises(LearnerError, match="read-only"):
        train(trainee, TASK, Received(model_of(trainee)), Progress())


GOOD = {"w": np.zeros(2, np.float32), "mean": np.array(0.0)}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ((GOOD, 10), "train\\(\\) returned tuple; it must return TrainingResult"),
        (TrainingResult({"w": GOOD["w"]}, 10), "tensor 'mean' is missing"),
        (TrainingResult({**GOOD, "v": GOOD["w"]}, 10), "tensor 'v' is not part of the model"),
        (TrainingResult({**GOOD, "w": np.zeros(2)}, 10), "tensor 'w' is float64\\[2\\], expected float32\\[2\\]"),
        (
            TrainingResult({**GOOD, "w": np.zeros(3, np.float32)}, 10),
            "tensor 'w' is float32\\[3\\], expected float32\\[2\\]",
        ),
        (
            TrainingResult({**GOOD, "w": np.array([np.inf, 1], np.float32)}, 10),
            "infinity in 1 of 2 values of tensor 'w'",
        ),
        (TrainingResult(GOOD, 0), "examples is 0; it must be a whole number of at least 1"),
        (TrainingResult(GOOD, 2.5), "examples is 2.5"),  # type: ignore[arg-type]
        (TrainingResult(GOOD, 10, batches=-1), "batches is -1"),
        (TrainingResult(GOOD, 10, metrics={"loss": float("nan")}), "metric 'loss' as nan; it must be finite"),
        (TrainingResult(GOOD, 10, metrics={"train loss": 1.0}), "named a metric 'train loss'"),
        (TrainingResult(GOOD, 10, metrics={"loss": "low"}), "metric 'loss' as str"),  # type: ignore[dict-item]
        (TrainingResult(GOOD, 10, metrics={f"m{n}": 0.0 for n in range(65)}), "at most 64 are allowed"),
    ],
)
def test_unusable_training_result_is_refused(make_context: Context, returned: Any, message: str) -> None:
    trainee = ready(make_context, trained=returned)
    with pytest.raises(LearnerError, match=message):
        train(trainee, TASK, Received(model_of(trainee)), Progress())


def test_numpys_numbers_are_numbers(make_context: Context) -> None:
    returned = TrainingResult(GOOD, np.int64(10), np.int32(3), {"loss": np.float32(0.5)})  # type: ignore[dict-item,arg-type]
    trainee = ready(make_context, trained=returned)
    report = train(trainee, TASK, Received(model_of(trainee)), Progress()).report
    assert (report.examples, report.batches, report.metrics[0].value) == (10, 3, 0.5)


def test_cancelled_training_raises_and_is_no_error_of_the_learner(make_context: Context) -> None:
    progress = Progress()
    trainee = ready(make_context, train=lambda self, weights, task: list(task.batches(10)))
    progress.cancel()
    with pytest.raises(TaskCancelled):
        train(trainee, TASK, Received(model_of(trainee)), progress)


@pytest.mark.parametrize("error", [ValueError("spam"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_is_raised_is_named_with_its_line(make_context: Context, error: BaseException) -> None:
    def broken(self: Any, weights: Any) -> Any:
        raise error

    trainee = ready(make_context, evaluate=broken)
    with pytest.raises(
        LearnerError, match=rf"evaluate\(\) raised {type(error).__name__}.*test_work.py, line .* broken"
    ):
        evaluate(trainee, TASK, model_of(trainee))


def test_evaluate(make_context: Context) -> None:
    trainee = ready(make_context)
    evaluation = evaluate(trainee, TASK, model_of(trainee))
    assert (evaluation.task_id, evaluation.model_version, evaluation.examples) == ("t", 4, 5)
    assert [(m.name, m.value) for m in evaluation.metrics] == [("accuracy", 0.5)]


def test_learner_without_held_out_examples_is_not_asked(make_context: Context) -> None:
    trainee = ready(make_context, test_examples=0, evaluated="never looked at")
    evaluation = evaluate(trainee, TASK, model_of(trainee))
    assert (evaluation.examples, len(evaluation.metrics)) == (0, 0)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"accuracy": 1.0}, "evaluate\\(\\) returned dict; it must return Evaluation"),
        (Evaluation(0, {}), "examples is 0"),
    ],
)
def test_unusable_evaluation_is_refused(make_context: Context, returned: Any, message: str) -> None:
    trainee = ready(make_context, evaluated=returned)
    with pytest.raises(LearnerError, match=message):
        evaluate(trainee, TASK, model_of(trainee))


def test_initialise(make_context: Context) -> None:
    trainee = ready(make_context)
    result = initialise(trainee, pb.Task(task_id="i", kind=pb.TASK_KIND_INITIALISE))
    assert np.array_equal(result.content.buffers[0], model_of(trainee))
    assert (result.produces, result.report.examples) == (0, 0)


def test_training_time_is_measured(make_context: Context) -> None:
    def slow(self: Any, weights: Any, task: Any) -> Any:
        time.sleep(0.05)
        return TrainingResult(GOOD, 10)

    trainee = ready(make_context, train=slow)
    assert 0.05 <= train(trainee, TASK, Received(model_of(trainee)), Progress()).report.seconds < 5

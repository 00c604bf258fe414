"""The examples reach their targets under FedAvg written out in NumPy, without any controller."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from metisfl.spec import Federation, load_federation
from metisfl_learner import Learner, LearnerContext, TrainingTask
from metisfl_learner.loading import load_class

EXAMPLES = Path(__file__).parents[3] / "examples"
Context = Callable[..., LearnerContext]
Start = Callable[[str], tuple[Federation, list[Learner]]]


@pytest.fixture
def start(make_context: Context, monkeypatch: pytest.MonkeyPatch) -> Start:
    """The federation of an example and its learners, made as the processes make them."""

    def make(name: str) -> tuple[Federation, list[Learner]]:
        federation = load_federation(EXAMPLES / name / "federation.yaml")
        spec = federation.spec
        monkeypatch.syspath_prepend(EXAMPLES / name)
        monkeypatch.delitem(sys.modules, "learner", raising=False)
        learner_class = load_class(spec.learner.entrypoint)
        groups = [group for group in spec.learner_groups for _ in range(group.replicas)]
        return federation, [
            learner_class(make_context(index, spec.partition_count, **{**spec.learner.parameters, **group.parameters}))
            for index, group in enumerate(groups)
        ]

    return make


def fedavg(federation: Federation, learners: list[Learner], seed: int) -> list[float]:
    """Accuracy of each round's model, until the target is met or the rounds are used up."""
    spec = federation.spec
    target = spec.termination.target_metric
    assert target is not None
    assert target.at_least is not None
    weights = dict(learners[0].initial_weights())
    accuracies: list[float] = []
    for number in range(1, spec.termination.max_rounds + 1):
        task = TrainingTask(
            round=number,
            epochs=spec.training.epochs,
            batch_size=spec.training.batch_size,
            learning_rate=float(spec.training.learning_rate),
            seed=1000 * seed + number,
        )
        results = [learner.train(weights, task) for learner in learners]
        sizes = np.array([result.examples for result in results], np.float64)
        weights = {
            name: np.average([r.weights[name] for r in results], axis=0, weights=sizes).astype(array.dtype)
            for name, array in weights.items()
        }
        evaluations = [learner.evaluate(weights) for learner in learners]
        accuracies.append(
            sum(e.metrics[target.name] * e.examples for e in evaluations) / sum(e.examples for e in evaluations)
        )
        if accuracies[-1] >= float(target.at_least):
            break
    return accuracies


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["digits", "breast-cancer", "own-learner"])
def test_target_is_met_with_rounds_to_spare(start: Start, name: str, seed: int) -> None:
    federation, learners = start(name)
    target = federation.spec.termination.target_metric
    assert target is not None
    accuracies = fedavg(federation, learners, seed)
    assert accuracies[-1] >= float(target.at_least or 1) >= 0.95
    assert len(accuracies) <= federation.spec.termination.max_rounds / 2


def rows(*arrays: Any) -> set[bytes]:
    """Examples as byte strings, so that they can be compared."""
    return {np.ascontiguousarray(row, np.float32).tobytes() for array in arrays for row in array}


def test_digits_learners_share_all_images_and_train_on_no_held_out_one(start: Start) -> None:
    _, learners = start("digits")
    images = load_digits().data / 16.0
    trained = [learner._train.tensors[0].numpy() for learner in learners]  # type: ignore[attr-defined]
    held_out = [learner._test.tensors[0].numpy() for learner in learners]  # type: ignore[attr-defined]
    assert sum(map(len, held_out)) == round(0.2 * len(images))
    assert sum(map(len, trained)) + sum(map(len, held_out)) == len(images)
    assert rows(*trained) | rows(*held_out) == rows(images)
    assert not rows(*trained) & rows(*held_out)


def test_hospitals_differ_in_size_and_share_the_held_out_tumours_evenly(start: Start) -> None:
    _, learners = start("breast-cancer")
    sizes = [learner.train_examples for learner in learners]
    tumours = len(load_breast_cancer().target)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 5 * sizes[2]
    assert sum(sizes) == tumours - round(0.2 * tumours)
    assert [learner.test_examples for learner in learners] == [38, 38, 38]


def test_hospitals_standardise_by_their_training_examples_alone(start: Start) -> None:
    _, learners = start("breast-cancer")
    for learner in learners:
        features = learner._train[0]  # type: ignore[attr-defined]
        assert features.mean(axis=0) == pytest.approx(np.zeros(30), abs=1e-5)
        assert features.std(axis=0) == pytest.approx(np.ones(30), abs=1e-4)


def test_gradient_of_the_logistic_regression_is_that_of_its_loss(start: Start) -> None:
    """Central differences of the penalised loss."""
    _, (learner, *_) = start("breast-cancer")
    inputs, targets = (array[:50].astype(np.float64) for array in learner._train)  # type: ignore[attr-defined]
    random = np.random.default_rng(0)
    weights = {"weight": random.normal(size=30), "bias": np.array(0.3)}

    def loss(weight: Any, bias: Any) -> float:
        measured = learner.measure({"weight": weight, "bias": bias}, inputs, targets)["loss"]  # type: ignore[attr-defined]
        return float(measured + 0.001 / 2 * weight @ weight)

    gradient = learner.gradient(weights, inputs, targets)  # type: ignore[attr-defined]
    step = 1e-6
    for place in range(30):
        shift = step * np.eye(30)[place]
        slope = loss(weights["weight"] + shift, 0.3) - loss(weights["weight"] - shift, 0.3)
        assert gradient["weight"][place] == pytest.approx(slope / (2 * step), abs=1e-6)
    slope = loss(weights["weight"], 0.3 + step) - loss(weights["weight"], 0.3 - step)
    assert gradient["bias"] == pytest.approx(slope / (2 * step), abs=1e-6)

"""FedProx's term, against the closed form of a quadratic loss: its minimum lies between the data's and the anchor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metisfl_learner import Capability, Learner, LearnerContext, TrainingTask
from metisfl_learner.adapters.numpy import NumpyLearner
from metisfl_learner.adapters.torch import TorchLearner

Context = Callable[..., LearnerContext]

RANDOM = np.random.default_rng(8)
INPUTS = RANDOM.normal(size=(40, 3)).astype(np.float32)
TARGETS = (INPUTS @ np.array([1, -2, 3], np.float32) + RANDOM.normal(size=40)).astype(np.float32)
RECEIVED = np.array([[5.0, 5.0, -5.0]], np.float32)


class NumpyLine(NumpyLearner):
    """Half the squared error of y ≈ x·w."""

    def gradient(self, weights: Mapping[str, Any], inputs: Any, targets: Any) -> Mapping[str, Any]:
        return {"weight": ((inputs @ weights["weight"][0] - targets) @ inputs / len(targets))[None]}

    def measure(self, weights: Mapping[str, Any], inputs: Any, targets: Any) -> Mapping[str, float]:
        return {}


def numpy_line(context: LearnerContext) -> Learner:
    return NumpyLine(context, {"weight": RECEIVED}, (INPUTS, TARGETS), (INPUTS, TARGETS))


def torch_line(context: LearnerContext) -> Learner:
    data = (torch.tensor(INPUTS), torch.tensor(TARGETS)[:, None])
    half = lambda outputs, targets: 0.5 * nn.functional.mse_loss(outputs, targets)  # noqa: E731
    return TorchLearner(context, nn.Linear(3, 1, bias=False), data, data, loss=half)


def minimum(mu: float, anchor: Any) -> Any:
    """argmin of |Xw − y|² / 2n + mu / 2 · |w − anchor|²: (XᵀX / n + mu·I) w = Xᵀy / n + mu·anchor."""
    x, y = INPUTS.astype(np.float64), TARGETS.astype(np.float64)
    return np.linalg.solve(x.T @ x / len(x) + mu * np.eye(3), x.T @ y / len(x) + mu * anchor)


@pytest.mark.parametrize("make", [numpy_line, torch_line])
@pytest.mark.parametrize("mu", [0.0, 0.5, 10.0])
def test_metisfl_defect_fedprox_anchors_at_zero(
    make_context: Context, make: Callable[[LearnerContext], Learner], mu: float
) -> None:
    task = TrainingTask(
        round=1, epochs=1, batch_size=len(INPUTS), learning_rate=0.08, seed=0, steps=600, proximal_mu=mu
    )
    result = make(make_context()).train({"weight": RECEIVED}, task)
    assert result.weights["weight"][0] == pytest.approx(minimum(mu, RECEIVED[0]), abs=2e-3)
    if mu:
        assert result.weights["weight"][0] != pytest.approx(minimum(mu, 0 * RECEIVED[0]), abs=0.1)


def test_adapters_say_that_they_can_and_a_plain_learner_that_it_cannot() -> None:
    assert Capability.PROXIMAL_TERM in TorchLearner.supports
    assert Capability.PROXIMAL_TERM in NumpyLearner.supports
    assert Capability.PROXIMAL_TERM not in Learner.supports

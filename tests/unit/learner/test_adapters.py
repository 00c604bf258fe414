"""The training loops of the adapters, against loops written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from metisfl_learner import LearnerContext, TrainingTask
from metisfl_learner.adapters.numpy import NumpyLearner
from metisfl_learner.adapters.torch import TorchLearner

Context = Callable[..., LearnerContext]
RANDOM = np.random.default_rng(3)
INPUTS = RANDOM.normal(size=(23, 4)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 23)


def task(epochs: int = 2, batch_size: int = 5, seed: int = 11) -> TrainingTask:
    return TrainingTask(round=1, epochs=epochs, batch_size=batch_size, learning_rate=0.1, seed=seed)


class Linear(NumpyLearner):
    """Least squares, y ≈ x·w."""

    def gradient(self, weights: Mapping[str, Any], inputs: Any, targets: Any) -> Mapping[str, Any]:
        return {"w": 2 * inputs.T @ (inputs @ weights["w"] - targets) / len(targets)}

    def measure(self, weights: Mapping[str, Any], inputs: Any, targets: Any) -> Mapping[str, float]:
        return {"loss": float(((inputs @ weights["w"] - targets) ** 2).mean())}


def linear(context: LearnerContext, **changes: Any) -> Linear:
    data = (INPUTS, INPUTS @ np.array([1, -2, 3, 0], np.float32))
    return Linear(context, **{"weights": {"w": np.zeros(4, np.float32)}, "train": data, "test": data, **changes})


def test_numpy_loop_is_gradient_descent_over_the_tasks_batches(make_context: Context) -> None:
    learner = linear(make_context())
    start = {"w": np.ones(4, np.float32)}
    result = learner.train(start, task())
    w, targets = np.ones(4), INPUTS @ np.array([1, -2, 3, 0])
    for batch in task().batches(len(INPUTS)):
        w -= 0.1 * np.mean([2 * (INPUTS[i] @ w - targets[i]) * INPUTS[i] for i in batch], axis=0)
    assert result.weights["w"] == pytest.approx(w, rel=1e-4)
    assert result.weights["w"].dtype == np.float32
    assert result.examples == 23
    assert start["w"].tolist() == [1, 1, 1, 1]


def test_numpy_learner_learns(make_context: Context) -> None:
    learner = linear(make_context())
    result = learner.train(learner.initial_weights(), task(epochs=50))
    assert learner.evaluate(result.weights).metrics["loss"] < 1e-3
    assert result.metrics["train_loss"] < 1e-3


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((INPUTS, LABELS[:5]), "train has 23 inputs and 5 targets"),
        ((INPUTS[:0], LABELS[:0]), "no training examples"),
    ],
)
def test_numpy_learner_refuses_unusable_data(make_context: Context, train: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear(make_context(), train=train)


def module() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(INPUTS), torch.tensor(LABELS)


class Pairs(Dataset[Any]):
    """A map-style data set that gives one pair at a time."""

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> Any:
        return INPUTS[index], LABELS[index]


def torch_learner(context: LearnerContext, **changes: Any) -> TorchLearner:
    return TorchLearner(context, **{"model": module(), "train": tensors(), "test": tensors(), **changes})


def by_hand(start: nn.Module) -> dict[str, Any]:
    """torch's own SGD over the same batches."""
    inputs, labels = tensors()
    optimizer = torch.optim.SGD(start.parameters(), lr=0.1)
    start.train()
    for batch in task().batches(len(INPUTS)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(start(inputs[batch]), labels[batch]).backward()
        optimizer.step()
    return {name: tensor.numpy() for name, tensor in start.state_dict().items()}


@pytest.mark.parametrize("data", [tensors(), Pairs()], ids=["tensors", "data set"])
def test_torch_loop_is_gradient_descent_over_the_tasks_batches(make_context: Context, data: Any) -> None:
    learner = torch_learner(make_context(), train=data)
    start = learner.initial_weights()
    result = learner.train(start, task())
    expected = by_hand(module())
    assert list(result.weights) == list(expected)
    for name, array in expected.items():
        assert result.weights[name] == pytest.approx(array, rel=1e-4, abs=1e-6), name
    # Training again from the same weights gives the same: nothing is left over from the first time.
    again = learner.train(start, task())
    assert all(np.array_equal(result.weights[name], again.weights[name]) for name in expected)


def test_torch_optimiser_can_be_chosen(make_context: Context) -> None:
    def adam(parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=learning_rate)

    plain, other = torch_learner(make_context()), torch_learner(make_context(), optimizer=adam)
    start = plain.initial_weights()
    assert not np.array_equal(
        plain.train(start, task()).weights["0.weight"], other.train(start, task()).weights["0.weight"]
    )


def test_running_statistics_and_frozen_parameters_are_not_trainable(make_context: Context) -> None:
    model = module()
    model[0].bias.requires_grad_(False)  # type: ignore[index]
    learner = torch_learner(make_context(), model=model)
    assert learner.not_trainable == ["0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    before = learner.initial_weights()
    after = learner.train(before, task()).weights
    assert np.array_equal(before["0.bias"], after["0.bias"])
    assert after["1.num_batches_tracked"] == 10
    assert after["1.num_batches_tracked"].dtype == np.int64


def test_torch_evaluation_is_exact_over_all_batches(make_context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metisfl_learner.adapters.torch.EVALUATION_BATCH", 7)
    learner = torch_learner(make_context())
    model = module().eval()
    evaluation = learner.evaluate(learner.initial_weights())
    inputs, labels = tensors()
    with torch.no_grad():
        outputs = model(inputs)
    assert evaluation.examples == 23
    assert evaluation.metrics["accuracy"] == pytest.approx((outputs.argmax(1) == labels).float().mean().item())
    assert evaluation.metrics["loss"] == pytest.approx(nn.functional.cross_entropy(outputs, labels).item())


def test_read_only_weights_are_loaded_without_a_warning(make_context: Context) -> None:
    learner = torch_learner(make_context())
    weights = learner.initial_weights()
    for array in weights.values():
        array.flags.writeable = False
    learner.evaluate(weights)


def test_torch_uses_as_many_threads_as_allowed(make_context: Context) -> None:
    before = torch.get_num_threads()
    try:
        torch_learner(make_context(threads="2"))
        assert torch.get_num_threads() == 2
        torch_learner(make_context())
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


class Stream(IterableDataset[Any]):
    """A data set without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(Pairs())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": Stream()}, TypeError, "the train data set has no length"),
        ({"train": (torch.zeros(0, 4), torch.zeros(0))}, ValueError, "no training examples"),
    ],
)
def test_torch_learner_refuses_unusable_data(make_context: Context, changes: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        torch_learner(make_context(), **changes)


def test_tensor_that_numpy_cannot_hold_is_named(make_context: Context) -> None:
    model = module()
    model.register_buffer("narrow", torch.zeros(2, dtype=torch.float8_e4m3fn))
    learner = torch_learner(make_context(), model=model)
    with pytest.raises(TypeError, match=r"tensor 'narrow' is torch\.float8_e4m3fn"):
        learner.initial_weights()


def test_bfloat16_goes_to_numpy_and_back_bit_for_bit(make_context: Context) -> None:
    model = module().to(torch.bfloat16)
    learner = torch_learner(make_context(), model=model)
    weights = learner.initial_weights()
    assert {array.dtype.name for array in weights.values() if array.dtype.kind != "i"} == {"bfloat16"}
    assert np.array_equal(weights["0.weight"].astype(np.float32), model.state_dict()["0.weight"].float().numpy())
    doubled = {name: np.asarray(array * array.dtype.type(2)) for name, array in weights.items()}
    for array in doubled.values():
        array.flags.writeable = False
    learner._load(doubled)
    assert learner._weights()["0.weight"].tobytes() == doubled["0.weight"].tobytes()

"""A learner's control variate against SCAFFOLD's formula, and what becomes of it when an upload does not count."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metisfl.logs import logger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.control import STAMP, Stamp, control_layout
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.transport import Transport
from metisfl_learner import Learner, LearnerContext, TrainingTask
from metisfl_learner.adapters.numpy import NumpyLearner
from metisfl_learner.adapters.torch import TorchLearner
from metisfl_learner.checks import LearnerError
from metisfl_learner.control import ControlVariate
from metisfl_learner.keeping import ArrayStore, InFile, InMemory
from metisfl_learner.learner import Progress
from metisfl_learner.work import Received, prepare, train

Context = Callable[..., LearnerContext]

ARRAYS: dict[str, Any] = {"w": np.zeros((2, 3), np.float32), "n": np.array(0), "wide": np.zeros(2), "m": np.zeros(1)}
MODEL = Layout.of(ARRAYS, frozen=("m",))
CONTROL = control_layout(MODEL)
NAMES = ("w", "wide")


def variate(store: ArrayStore) -> ControlVariate:
    return ControlVariate(Encoding(CONTROL, Codec.FLOAT32), MODEL, store)


def received(value: float, generation: int = 1) -> Buffer:
    """A global variate of equal elements."""
    control = CONTROL.allocate()
    for name in NAMES:
        CONTROL.views(control)[name][...] = value
    Stamp(generation).write(CONTROL, control)
    return control


def model(value: float) -> Buffer:
    return MODEL.pack({name: np.full_like(array, value) for name, array in ARRAYS.items()})


def change(own: ControlVariate, task: str, by: float, c: Buffer, version: int = 0) -> tuple[float, Stamp]:
    """Δc_i, the same for all elements, when two steps of rate 0.25 went from 1 to 1 + by; and its stamp."""
    buffer = own.change(task, model(1 + by), model(1), c, version=version, steps=2, rate=0.25)
    values = np.concatenate([CONTROL.views(buffer)[name].reshape(-1).astype(float) for name in NAMES])
    assert np.unique(values).size == 1
    return float(values[0]), Stamp.of(CONTROL, buffer)


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ControlVariate]:
    """The same learner's variate; from a file it is read anew each time, as by another process."""
    if request.param == "memory":
        store = InMemory()
        return lambda: variate(store)
    return lambda: variate(InFile(tmp_path, "variate", np.uint8, "owner", logger("test")))


def test_it_follows_option_two(make: Callable[[], ControlVariate]) -> None:
    """c_i⁺ = c_i − c + (x − y) / (K · η), with K · η = 1/2."""
    own = make()
    assert own.correction(received(0.5))["w"].tolist() == np.full((2, 3), 0.5).tolist()
    # c_i = 0, c = 0.5, x − y = −3: c_i⁺ = −0.5 − 6.
    assert change(own, "one", 3, received(0.5)) == (-6.5, Stamp(1, 0, 1))
    own.accepted("one")
    own = make()
    correction = own.correction(received(0.5))
    assert {name: (array.dtype.name, array.shape) for name, array in correction.items()} == {
        "w": ("float32", (2, 3)),
        "wide": ("float64", (2,)),
    }
    assert correction["wide"].tolist() == [7, 7]
    # c_i = −6.5, c = 1, x − y = 2: c_i⁺ = −7.5 + 4 = −3.5.
    assert change(own, "two", -2, received(1), version=4) == (3.0, Stamp(1, 1, 5))


def test_only_an_accepted_upload_moves_it(make: Callable[[], ControlVariate]) -> None:
    own = make()
    change(own, "late", 3, received(0))
    own.forget("late")
    own.accepted("late")
    change(own, "given up", 5, received(0))
    assert change(own, "one", 1, received(0)) == (-2, Stamp(1, 0, 1))
    own.accepted("given up")
    own.accepted("one")
    own.accepted("one")
    assert own.correction(received(0))["wide"].tolist() == [2, 2]


class SlowStore(InMemory):
    """Saves when it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.saving, self.go_on = threading.Event(), threading.Event()

    def save(self, array: Buffer) -> None:
        self.saving.set()
        assert self.go_on.wait(10)
        super().save(array)


def test_the_next_task_waits_until_an_accepted_variate_is_saved() -> None:
    store = SlowStore()
    own = variate(store)
    change(own, "one", 3, received(0))
    with ThreadPoolExecutor(2) as threads:
        threads.submit(own.accepted, "one")
        assert store.saving.wait(10)
        correction = threads.submit(own.correction, received(0))
        with pytest.raises(TimeoutError):
            correction.result(timeout=0.05)
        store.go_on.set()
        assert correction.result(timeout=10)["wide"].tolist() == [6, 6]


def test_another_generation_begins_at_zero(make: Callable[[], ControlVariate]) -> None:
    own = make()
    change(own, "one", 3, received(0))
    own.accepted("one")
    own = make()
    assert own.correction(received(0.5, generation=2))["w"].max() == 0.5
    assert change(own, "two", 1, received(0, generation=2), version=1) == (-2, Stamp(2, 0, 2))
    own.accepted("two")
    assert change(make(), "three", 1, received(0, generation=2), version=2) == (-2, Stamp(2, 2, 3))


@pytest.mark.parametrize("damage", ["lost", "cut", "not finite"])
def test_a_lost_or_damaged_variate_begins_at_zero(tmp_path: Path, damage: str) -> None:
    def make() -> ControlVariate:
        return variate(InFile(tmp_path, "variate", np.uint8, "owner", logger("test")))

    own = make()
    change(own, "one", 3, received(0))
    own.accepted("one")
    (path,) = tmp_path.iterdir()
    match damage:
        case "lost":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-10])
        case _:
            stored = np.load(path)
            stored[3:4] = 0xFF
            stored[2:3] = 0x80
            np.save(path, stored)
    assert change(make(), "two", 1, received(0), version=1) == (-2, Stamp(1, 0, 2))


def test_a_variate_beyond_its_range_is_the_learners_error() -> None:
    largest = MODEL.pack({**ARRAYS, "w": np.full((2, 3), np.finfo(np.float32).max)})
    with pytest.raises(LearnerError, match="tensor 'w' holds NaN or infinity; a larger"):
        variate(InMemory()).change("t", largest, model(0), received(0), version=0, steps=1, rate=0.01)


# ---- adapters


INPUTS = np.random.default_rng(5).normal(size=(12, 3)).astype(np.float32)
TARGETS = (INPUTS @ np.array([1, -2, 3], np.float32)).astype(np.float32)


class NumpyLine(NumpyLearner):
    """Half the squared error of y ≈ x·w."""

    def gradient(self, weights: Any, inputs: Any, targets: Any) -> Any:
        return {"weight": ((inputs @ weights["weight"][0] - targets) @ inputs / len(targets))[None]}

    def measure(self, weights: Any, inputs: Any, targets: Any) -> Any:
        return {}


class NumpyLearnerOfALine(NumpyLine):
    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context, {"weight": np.zeros((1, 3), np.float32)}, (INPUTS, TARGETS), (INPUTS, TARGETS))


class TorchLearnerOfALine(TorchLearner):
    def __init__(self, context: LearnerContext) -> None:
        data = (torch.tensor(INPUTS), torch.tensor(TARGETS)[:, None])
        loss = lambda outputs, targets: 0.5 * nn.functional.mse_loss(outputs, targets)  # noqa: E731
        super().__init__(context, nn.Linear(3, 1, bias=False), data, data, loss=loss)


BOTH = pytest.mark.parametrize("learner_class", [NumpyLearnerOfALine, TorchLearnerOfALine])


@BOTH
def test_adapters_add_the_correction_to_every_step(make_context: Context, learner_class: Any) -> None:
    correction = np.array([[0.5, -1, 2]], np.float32)
    task = TrainingTask(
        round=1, epochs=2, batch_size=5, learning_rate=0.1, seed=3, correction={"weight": correction}, proximal_mu=0.5
    )
    start = np.array([[1.0, 1, 1]], np.float32)
    got = learner_class(make_context()).train({"weight": start}, task).weights["weight"]
    w = start[0].astype(float)
    for batch in task.batches(len(INPUTS)):
        gradient = (INPUTS[batch] @ w - TARGETS[batch]) @ INPUTS[batch] / len(batch)
        w -= 0.1 * (gradient + 0.5 * (w - start[0]) + correction[0])
    assert got[0] == pytest.approx(w, rel=1e-4)


def test_a_torch_parameter_without_a_gradient_is_corrected_as_well(make_context: Context) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 1, bias=False), nn.Parameter(torch.zeros(2))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.used(inputs)

    data = (torch.tensor(INPUTS), torch.tensor(TARGETS)[:, None])
    learner = TorchLearner(make_context(), Half(), data, data, loss=nn.functional.mse_loss)
    start = learner.initial_weights()
    correction = {"unused": np.array([1, -1], np.float32), "used.weight": np.zeros((1, 3), np.float32)}
    task = TrainingTask(round=1, epochs=1, batch_size=4, learning_rate=0.1, seed=3, correction=correction)
    # Three batches of 4 examples.
    assert learner.train(start, task).weights["unused"] == pytest.approx([-0.3, 0.3])


@BOTH
def test_with_plain_sgd_the_new_variate_is_the_mean_gradient(make_context: Context, learner_class: Any) -> None:
    """So training and `change` agree on signs: what is uploaded is (mean gradient of the steps) − c_i."""
    trainee = prepare("mine:Line", learner_class, make_context(), Transport(control=True))
    layout = trainee.description.layout
    assert trainee.encoder.control is not None
    control = control_layout(layout)
    c = control.allocate()
    control.views(c)["weight"][...] = 0.7
    Stamp(1).write(control, c)
    training = pb.Training(epochs=2, batch_size=5, learning_rate=0.1, seed=3)
    task = pb.Task(task_id="t", kind=pb.TASK_KIND_TRAIN, model_version=6, training=training)
    result = train(trainee, task, Received(layout.pack({"weight": np.ones((1, 3), np.float32)}), c), Progress())
    assert result.content.sections.names == ["model", "control"]
    w, gradients = np.ones(3), []
    order = TrainingTask(round=0, epochs=2, batch_size=5, learning_rate=0.1, seed=3)
    for batch in order.batches(len(INPUTS)):
        gradients.append((INPUTS[batch] @ w - TARGETS[batch]) @ INPUTS[batch] / len(batch))
        w -= 0.1 * (gradients[-1] + 0.7)
    views = control.views(result.content.buffers[1])
    assert views["weight"][0] == pytest.approx(np.mean(gradients, axis=0), rel=1e-3, abs=1e-4)
    assert views[STAMP].tolist() == [1, 0, 7]


def test_a_plain_learner_cannot() -> None:
    assert not Learner.supports

"""The values that users get: tasks and their context."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl_learner import LearnerContext, ParameterError, TaskCancelled, TrainingTask


def task(epochs: int = 1, batch_size: int = 4, seed: int = 0, steps: int | None = None) -> TrainingTask:
    return TrainingTask(round=1, epochs=epochs, batch_size=batch_size, learning_rate=0.1, seed=seed, steps=steps)


@given(epochs=st.integers(1, 4), batch_size=st.integers(1, 20), examples=st.integers(1, 50), seed=st.integers(0, 99))
def test_each_epoch_visits_each_example_once(epochs: int, batch_size: int, examples: int, seed: int) -> None:
    order = task(epochs, batch_size, seed)
    batches = list(order.batches(examples))
    assert len(batches) == order.batch_count(examples)
    assert max(map(len, batches)) <= batch_size
    visited = np.concatenate(batches).reshape(epochs, examples)
    assert np.array_equal(np.sort(visited, axis=1), np.tile(np.arange(examples), (epochs, 1)))


@given(steps=st.integers(1, 60), batch_size=st.integers(1, 20), examples=st.integers(1, 50), seed=st.integers(0, 99))
def test_steps_go_through_as_many_epochs_as_it_takes(steps: int, batch_size: int, examples: int, seed: int) -> None:
    order = task(1, batch_size, seed, steps)
    batches = list(order.batches(examples))
    assert len(batches) == order.batch_count(examples) == steps
    whole_epochs = np.concatenate(list(task(steps, batch_size, seed).batches(examples)))
    visited = np.concatenate(batches)
    # The same order as epochs have, cut off.
    assert np.array_equal(visited, whole_epochs[: len(visited)])
    # The last batch of an epoch may be smaller, so this is where the count of examples stands.
    assert order.passes(examples) == pytest.approx(len(visited) / examples)


def test_order_depends_on_the_seed_alone() -> None:
    first, again, other = (np.concatenate(list(task(seed=seed).batches(50))) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_epochs_have_different_orders() -> None:
    first, second = np.concatenate(list(task(epochs=2).batches(50))).reshape(2, 50)
    assert not np.array_equal(first, second)


def test_batches_report_progress() -> None:
    order = task(epochs=2, batch_size=5)
    assert [order.progress.fraction for _ in order.batches(10)] == [0, 0.25, 0.5, 0.75]


def test_report_of_a_cancelled_task_raises_through_except_exception() -> None:
    order = task()
    order.report(0.5)
    order.progress.cancel()
    assert order.cancelled

    def careless_code() -> None:
        try:
            order.report(0.6)
        except Exception:  # noqa: BLE001 - what users write
            pytest.fail("a cancellation must not be caught by accident")

    with pytest.raises(TaskCancelled):
        careless_code()
    assert order.progress.fraction == 0.5


def test_parameters(make_context: Callable[..., LearnerContext]) -> None:
    context = make_context(alpha="0.5", hidden="64")
    assert (context.number("alpha", 1.0), context.integer("hidden", 1)) == (0.5, 64)
    assert (context.number("beta", 1.5), context.integer("layers", 2)) == (1.5, 2)


@pytest.mark.parametrize("text", ["x", "", "nan", "inf"])
def test_parameter_that_is_no_number(make_context: Callable[..., LearnerContext], text: str) -> None:
    with pytest.raises(ParameterError, match=f"parameter alpha is '{text}'"):
        make_context(alpha=text).number("alpha", 1.0)


def test_parameter_that_is_no_whole_number(make_context: Callable[..., LearnerContext]) -> None:
    with pytest.raises(ParameterError, match=r"parameter hidden is '1\.5'; it must be a whole number"):
        make_context(hidden="1.5").integer("hidden", 1)


def test_threads(make_context: Callable[..., LearnerContext]) -> None:
    assert make_context().threads == 1
    assert make_context(threads="4").threads == 4
    with pytest.raises(ParameterError, match="at least 1"):
        _ = make_context(threads="0").threads

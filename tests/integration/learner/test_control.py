"""Control variates over gRPC: two sections each way, which go on wherever the stream broke, and what is remembered."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.control import STAMP, Stamp, control_layout
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.transport import Transport
from metisfl_learner import Capability, Evaluation, Learner, TrainingResult
from tests.integration.learner.conftest import WAIT_SECONDS

# Two chunks in each section.
MODEL = {"w": np.linspace(-1, 1, CHUNK_BYTES // 4 + 10, dtype=np.float32)}
RATE, STEPS = 0.25, 2


class Slope(Learner):
    """A loss whose gradient is 3 everywhere."""

    supports = (Capability.CONTROL_VARIATES,)
    train_examples, test_examples = 10, 0

    def initial_weights(self) -> Any:
        return MODEL

    def train(self, weights: Any, task: Any) -> TrainingResult:
        w = weights["w"].copy()
        for _ in range(STEPS):
            w -= RATE * (3 + task.correction["w"])
        return TrainingResult({"w": w}, examples=10, batches=STEPS)

    def evaluate(self, weights: Any) -> Evaluation:
        raise NotImplementedError


def order(number: int) -> pb.Task:
    training = pb.Training(steps=STEPS, batch_size=5, learning_rate=RATE, seed=1)
    return pb.Task(task_id=f"t{number}", kind=pb.TASK_KIND_TRAIN, round=number, model_version=0, training=training)


def serve(controller: Any, value: float) -> None:
    """Models, and a global control variate with this value everywhere."""
    controller.transport = Transport(control=True)
    controller.serve(0, MODEL)
    layout = control_layout(controller.layout)
    controller.control = layout.allocate()
    layout.views(controller.control)["w"][...] = value
    Stamp(1).write(layout, controller.control)


def sent(controller: Any, received: Any) -> tuple[float, float, list[int]]:
    """By how much the model and the variate changed, the same for all elements, and the stamp."""
    layout = controller.layout
    model = layout.views(np.frombuffer(received.content, np.uint8))["w"] - MODEL["w"]
    control = control_layout(layout).views(np.frombuffer(received.control, np.uint8))
    assert np.ptp(model) < 1e-5
    assert np.ptp(control["w"]) < 1e-5
    return float(model.mean()), float(control["w"].mean()), control[STAMP].tolist()


@pytest.mark.parametrize(
    ("after", "goes_on"),
    [(CHUNK_BYTES, [CHUNK_BYTES, 0]), (2 * CHUNK_BYTES + 40, [CHUNK_BYTES + 40, CHUNK_BYTES])],
    ids=["in the model", "in the control variate"],
)
async def test_both_sections_go_on_where_the_stream_broke(
    controller: Any, attach: Any, after: int, goes_on: list[int]
) -> None:
    serve(controller, 1.0)
    controller.break_downloads_after = [after]
    controller.break_uploads_after = [after]
    async with attach(controller.address, Slope):
        controller.tasks.put_nowait(order(1))
        received = await controller.next_receipted()
    assert [upload.offsets for upload in controller.uploads] == [[0, 0], goes_on]
    assert received.header.sections == controller.transport.upload_sections(controller.layout).announce()
    # The steps are of 3 + 1, and the mean gradient is 3.
    assert sent(controller, received) == (pytest.approx(-2.0), pytest.approx(3.0, abs=1e-5), [1, 0, 1])


@pytest.mark.parametrize("kept", ["in memory", "in a file"])
async def test_the_variate_is_remembered_once_it_counts(
    controller: Any, attach: Any, tmp_path: Path, kept: str
) -> None:
    serve(controller, 1.0)
    late, accepted = (pb.Receipt(outcome=outcome) for outcome in (pb.OUTCOME_LATE, pb.OUTCOME_ACCEPTED))
    controller.receipts = [late, accepted, accepted]
    changes = []
    async with attach(controller.address, Slope, state_dir=tmp_path if kept == "in a file" else None):
        for number in range(3):
            controller.tasks.put_nowait(order(number + 1))
            changes.append(sent(controller, await controller.next_receipted())[1:])
            # The receipt has been read, and acted on, by the time the learner reports that it is idle.
            controller.heartbeats.clear()
            await controller.heartbeat(lambda beat: beat.activity == pb.ACTIVITY_IDLE)
    assert changes == [
        (pytest.approx(3.0, abs=1e-5), [1, 0, 1]),
        (pytest.approx(3.0, abs=1e-5), [1, 0, 1]),
        # c_i is the mean gradient by now.
        (pytest.approx(0.0, abs=1e-5), [1, 1, 1]),
    ]


@pytest.mark.parametrize("kept", ["in memory", "in a file"])
@pytest.mark.parametrize("says", ["counted", "uncommitted"])
async def test_the_next_task_says_what_counts_when_the_receipt_has_not_come(
    controller: Any, attach: Any, tmp_path: Path, kept: str, says: str
) -> None:
    serve(controller, 1.0)
    controller.receipts_kept_back = 1
    async with attach(controller.address, Slope, state_dir=tmp_path if kept == "in a file" else None):
        controller.tasks.put_nowait(order(1))
        await controller.next_receipted()
        following = order(2)
        if says == "counted":
            following.counted = "t1"
            following.model_version = 1
            controller.models[1] = controller.models[0]
        else:
            following.uncommitted.append("t1")
        controller.tasks.put_nowait(following)
        received = await controller.next_receipted()
    assert sent(controller, received)[2][1] == 1


async def test_a_session_ends_although_a_result_is_to_be_remembered_behind_code_that_does_not_end(
    controller: Any, attach: Any
) -> None:
    go_on = threading.Event()

    class Stuck(Slope):
        def train(self, weights: Any, task: Any) -> TrainingResult:
            if task.round == 2:
                go_on.wait(WAIT_SECONDS)
            return super().train(weights, task)

    serve(controller, 1.0)
    try:
        async with attach(controller.address, Stuck) as session:
            controller.tasks.put_nowait(order(1))
            await controller.next_receipted()
            second, third = order(2), order(3)
            second.uncommitted.append("t1")
            third.counted = "t1"
            controller.tasks.put_nowait(second)
            await controller.heartbeat(lambda beat: (beat.task_id, beat.activity) == ("t2", pb.ACTIVITY_TRAINING))
            controller.tasks.put_nowait(third)
            controller.tasks.put_nowait(pb.Task(kind=pb.TASK_KIND_STOP, reason="done"))
            await asyncio.wait_for(session, WAIT_SECONDS / 4)
    finally:
        go_on.set()

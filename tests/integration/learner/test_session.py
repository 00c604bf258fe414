"""A learner's session against a controller on a real connection that breaks, restarts and changes its mind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl_learner import Evaluation, Learner, TrainingResult
from metisfl_learner.client import ControllerClient
from metisfl_learner.exits import ExitCode, FatalError

# More than two chunks.
ELEMENTS = 700_000


class AddOne(Learner):
    """Training adds one to every weight; evaluation reports their mean."""

    train_examples = 10
    test_examples = 5

    def initial_weights(self) -> Any:
        return {"w": np.zeros(ELEMENTS, np.float32), "steps": np.array(3, np.int64)}

    def train(self, weights: Any, task: Any) -> TrainingResult:
        trained = {"w": weights["w"] + 1, "steps": weights["steps"] + np.int64(1)}
        return TrainingResult(trained, examples=10, metrics={"loss": 0.5})

    def evaluate(self, weights: Any) -> Evaluation:
        return Evaluation(5, {"accuracy": float(weights["w"].mean())})


def model(value: float) -> dict[str, np.ndarray[Any, Any]]:
    return {"w": np.full(ELEMENTS, value, np.float32), "steps": np.array(7, np.int64)}


def train(task_id: str, version: int, **fields: Any) -> pb.Task:
    training = pb.Training(epochs=1, batch_size=4, learning_rate=0.1, seed=1)
    return pb.Task(
        task_id=task_id,
        kind=pb.TASK_KIND_TRAIN,
        round=version + 1,
        model_version=version,
        training=training,
        **fields,
    )


STOP = pb.Task(kind=pb.TASK_KIND_STOP, reason="the target was met")


def contents(controller: Any, received: Any) -> dict[str, Any]:
    buffer = np.frombuffer(bytes(received.content), np.uint8)
    assert received.checksum == frames.section_checksum(buffer.data)
    views: dict[str, Any] = controller.layout.views(buffer)
    return views


async def test_initialise_train_evaluate_stop(controller: Any, attach: Any) -> None:
    async with attach(controller.address, AddOne) as session:
        ready = await controller.next_ready()
        assert (ready.lease_id, ready.train_examples, ready.test_examples) == ("lease-1", 10, 5)
        assert [t.name for t in ready.layout.tensors] == ["w", "steps"]

        controller.tasks.put_nowait(pb.Task(task_id="init", kind=pb.TASK_KIND_INITIALISE))
        controller.serve(0, model(0))
        received = await controller.next_receipted()
        assert received.header.kind == pb.UPLOAD_KIND_MODEL
        assert contents(controller, received)["steps"] == 3

        controller.serve(1, model(4))
        controller.tasks.put_nowait(train("t1", 1, evaluate=True))
        message = await controller.next_message()
        assert message.evaluation.model_version == 1
        assert {m.name: m.value for m in message.evaluation.metrics} == {"accuracy": 4.0}
        received = await controller.next_receipted()
        assert (received.header.task_id, received.header.base_version) == ("t1", 1)
        assert received.header.report.examples == 10
        assert received.header.report.batches == 3
        result = contents(controller, received)
        assert np.all(result["w"] == 5)
        assert result["steps"] == 8

        controller.tasks.put_nowait(pb.Task(task_id="e", kind=pb.TASK_KIND_EVALUATE, model_version=1))
        message = await controller.next_message()
        assert (message.evaluation.task_id, message.evaluation.examples) == ("e", 5)

        controller.tasks.put_nowait(STOP)
        await asyncio.wait_for(session, 10)
    assert {b.activity for b in controller.heartbeats} >= {
        pb.ACTIVITY_INITIALISING,
        pb.ACTIVITY_DOWNLOADING,
        pb.ACTIVITY_TRAINING,
        pb.ACTIVITY_UPLOADING,
    }


@pytest.mark.parametrize(("transfers", "streams"), [(1_000, 1), (1, 3)], ids=["kept", "ended while idle"])
async def test_transfers_share_a_stream_until_it_ends(
    controller: Any, attach: Any, caplog: pytest.LogCaptureFixture, transfers: int, streams: int
) -> None:
    controller.transfers_per_stream = transfers
    async with attach(controller.address, AddOne):
        await controller.next_ready()
        for version in range(3):
            controller.serve(version, model(version))
            controller.tasks.put_nowait(train(f"t{version}", version))
            received = await controller.next_receipted()
            assert np.all(contents(controller, received)["w"] == version + 1)
    assert (controller.download_streams, controller.upload_streams) == (streams, streams)
    assert "broke off" not in caplog.text


async def test_broken_download_goes_on_where_it_broke(controller: Any, attach: Any) -> None:
    controller.serve(0, model(2))
    controller.break_downloads_after = [1, 1]
    async with attach(controller.address, AddOne):
        controller.tasks.put_nowait(train("t", 0))
        received = await controller.next_receipted()
    assert np.all(contents(controller, received)["w"] == 3)
    assert controller.download_offsets == [0, 1 << 20, 2 << 20]


async def test_a_task_that_comes_while_a_certificate_is_renewed_is_done(
    controller: Any, attach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its download is under way when the new connection takes the place of the one before."""
    due = asyncio.Event()

    async def renewal_due(client: ControllerClient) -> None:
        await due.wait()
        due.clear()

    async def renew(client: ControllerClient) -> None:
        await controller.holding.wait()

    monkeypatch.setattr(ControllerClient, "renewal_due", renewal_due)
    monkeypatch.setattr(ControllerClient, "renew", renew)
    async with attach(controller.address, AddOne):
        assert (await controller.next_ready()).running_task == ""
        due.set()
        controller.serve(0, model(0))
        controller.downloads_held = 1
        controller.tasks.put_nowait(train("t1", 0))
        assert (await controller.next_ready()).running_task == "t1"
        assert (await controller.next_receipted()).header.task_id == "t1"


async def test_download_that_does_not_fit_its_checksum_starts_over(controller: Any, attach: Any) -> None:
    controller.serve(0, model(2))
    controller.corrupt_downloads = 1
    async with attach(controller.address, AddOne):
        controller.tasks.put_nowait(train("t", 0))
        received = await controller.next_receipted()
    assert np.all(contents(controller, received)["w"] == 3)
    assert controller.download_offsets == [0, 0]


async def test_broken_upload_goes_on_where_the_controller_says(controller: Any, attach: Any) -> None:
    controller.serve(0, model(2))
    controller.break_uploads_after = [1 << 20]
    async with attach(controller.address, AddOne):
        controller.tasks.put_nowait(train("t", 0))
        received = await controller.next_receipted()
    assert np.all(contents(controller, received)["w"] == 3)
    assert [upload.start for upload in controller.uploads] == [0, 1 << 20]


async def test_training_goes_on_while_the_controller_is_away(controller: Any, attach: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(AddOne):
        def train(self, weights: Any, task: Any) -> TrainingResult:
            begun.set()
            assert go_on.wait(20)
            return super().train(weights, task)

    controller.serve(0, model(2))
    async with attach(controller.address, Slow):
        await controller.next_ready()
        controller.tasks.put_nowait(train("t", 0, evaluate=True))
        await controller.next_message()
        assert await asyncio.to_thread(begun.wait, 10)
        await controller.stop()
        # The restarted controller does not know the old lease.
        controller.tasks_refusals = [(grpc.StatusCode.UNAUTHENTICATED, "unknown lease")]
        await controller.start()
        ready = await controller.next_ready()
        assert (ready.running_task, list(ready.held_tasks), ready.lease_id) == ("t", [], "lease-2")
        # Evaluations are not acknowledged: the last one is said again.
        assert (await controller.next_message()).evaluation.task_id == "t"
        go_on.set()
        received = await controller.next_receipted()
        assert received.header.lease_id == "lease-2"
        assert np.all(contents(controller, received)["w"] == 3)


async def test_accepted_update_is_held_and_sent_again_until_committed(controller: Any, attach: Any) -> None:
    controller.serve(0, model(0))
    async with attach(controller.address, AddOne):
        await controller.next_ready()
        controller.tasks.put_nowait(train("t", 0))
        await controller.next_receipted()
        await controller.stop()
        await controller.start()
        assert list((await controller.next_ready()).held_tasks) == ["t"]
        controller.tasks.put_nowait(pb.Task(task_id="t", kind=pb.TASK_KIND_RESEND))
        assert np.all(contents(controller, await controller.next_receipted())["w"] == 1)

        # Version 1 exists, so the update is in it.
        controller.serve(1, model(1))
        controller.tasks.put_nowait(pb.Task(task_id="e", kind=pb.TASK_KIND_EVALUATE, model_version=1))
        await controller.next_message()
        await controller.stop()
        await controller.start()
        assert list((await controller.next_ready()).held_tasks) == []


async def test_what_is_finished_while_the_controller_is_away_waits_to_be_asked_for(
    controller: Any, attach: Any
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(AddOne):
        def train(self, weights: Any, task: Any) -> TrainingResult:
            begun.set()
            assert go_on.wait(20)
            return super().train(weights, task)

    controller.serve(0, model(0))
    async with attach(controller.address, Slow):
        await controller.next_ready()
        controller.tasks.put_nowait(train("t", 0))
        assert await asyncio.to_thread(begun.wait, 10)
        await controller.stop()
        go_on.set()
        while not list((ready := await restarted(controller)).held_tasks):
            assert ready.running_task == "t"
        assert (list(ready.held_tasks), ready.running_task) == (["t"], "")
        assert controller.uploads == []
        controller.tasks.put_nowait(pb.Task(task_id="t", kind=pb.TASK_KIND_RESEND))
        assert np.all(contents(controller, await controller.next_receipted())["w"] == 1)


async def restarted(controller: Any) -> pb.Ready:
    await controller.stop()
    await controller.start()
    ready: pb.Ready = await controller.next_ready()
    return ready


@pytest.mark.parametrize("outcome", [pb.OUTCOME_LATE, pb.OUTCOME_REJECTED])
async def test_refused_update_is_forgotten(controller: Any, attach: Any, outcome: Any) -> None:
    controller.serve(0, model(0))
    controller.receipts = [pb.Receipt(outcome=outcome, message="no")]
    async with attach(controller.address, AddOne):
        await controller.next_ready()
        controller.tasks.put_nowait(train("t", 0))
        await controller.next_receipted()
        await controller.activities(pb.ACTIVITY_UPLOADING, pb.ACTIVITY_IDLE)
        controller.tasks.put_nowait(pb.Task(task_id="t", kind=pb.TASK_KIND_RESEND))
        assert (await controller.next_message()).failure.task_id == "t"


async def test_discard_cancels_training(controller: Any, attach: Any) -> None:
    begun = threading.Event()

    class Endless(AddOne):
        def train(self, weights: Any, task: Any) -> TrainingResult:
            while task.round == 1:
                begun.set()
                task.report(0.5)
            return super().train(weights, task)

    controller.serve(0, model(0))
    controller.serve(1, model(5))
    async with attach(controller.address, Endless):
        controller.tasks.put_nowait(train("old", 0))
        assert await asyncio.to_thread(begun.wait, 10)
        controller.tasks.put_nowait(pb.Task(task_id="old", kind=pb.TASK_KIND_DISCARD))
        controller.tasks.put_nowait(train("new", 1))
        received = await controller.next_receipted()
        assert received.header.task_id == "new"
        assert np.all(contents(controller, received)["w"] == 6)
    assert [upload.header.task_id for upload in controller.uploads] == ["new"]


async def test_lost_version_is_reported_and_the_learner_lives_on(controller: Any, attach: Any) -> None:
    controller.serve(1, model(0))
    async with attach(controller.address, AddOne):
        controller.tasks.put_nowait(train("gone", 0))
        assert "version 0 is gone" in (await controller.next_message()).failure.message
        controller.tasks.put_nowait(train("t", 1))
        assert (await controller.next_receipted()).header.task_id == "t"


async def test_transfer_with_a_dead_lease_waits_for_the_next(controller: Any, attach: Any) -> None:
    controller.serve(0, model(0))
    controller.upload_errors = [(grpc.StatusCode.UNAUTHENTICATED, "the lease has ended")]
    async with attach(controller.address, AddOne):
        controller.tasks.put_nowait(train("t", 0))
        assert (await controller.next_receipted()).header.task_id == "t"


async def test_heartbeats_go_on_during_training(controller: Any, attach: Any) -> None:
    enough = threading.Event()

    class Waiting(AddOne):
        def train(self, weights: Any, task: Any) -> TrainingResult:
            task.report(0.25)
            assert enough.wait(20)
            return super().train(weights, task)

    controller.serve(0, model(0))
    async with attach(controller.address, Waiting):
        await controller.next_ready()
        controller.tasks.put_nowait(train("t", 0))
        await controller.heartbeat(lambda beat: beat.activity == pb.ACTIVITY_TRAINING and beat.progress == 0.25)
        enough.set()
        await controller.next_receipted()


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED],
)
async def test_refusal_of_the_stream_is_final(controller: Any, attach: Any, code: Any) -> None:
    controller.tasks_refusals = [(code, "tensor 'w' is float32[5], expected float32[4]")]
    async with attach(controller.address, AddOne) as session:
        with pytest.raises(FatalError, match="expected float32") as caught:
            await asyncio.wait_for(session, 10)
    assert caught.value.code == ExitCode.REFUSED


async def test_model_of_another_layout_is_refused(controller: Any, attach: Any) -> None:
    controller.serve(0, {"w": np.zeros(3, np.float32)})
    async with attach(controller.address, AddOne) as session:
        controller.tasks.put_nowait(train("t", 0))
        with pytest.raises(FatalError, match="another layout") as caught:
            await asyncio.wait_for(session, 10)
    assert caught.value.code == ExitCode.REFUSED


async def test_unreachable_controller_is_given_up(attach: Any, controller: Any) -> None:
    await controller.stop()
    async with attach(controller.address, AddOne, connect_deadline_seconds=1.0) as session:
        with pytest.raises(FatalError, match="could not be reached") as caught:
            await asyncio.wait_for(session, 15)
    assert caught.value.code == ExitCode.UNREACHABLE

"""Models in every codec, down and up, on connections that break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl.wire.codecs import Codec
from metisfl.wire.compression import Compression
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.transport import Transport
from metisfl_learner import Evaluation, Learner, TrainingResult

# Three chunks of 16 bits a value.
ELEMENTS = 1_200_000
CHANGE = np.linspace(-0.01, 0.01, ELEMENTS, dtype=np.float32)
MODEL = {"w": np.linspace(1, 3, ELEMENTS, dtype=np.float32), "steps": np.array(7, np.int64)}


def has_residual(directory: Path) -> bool:
    return any(directory.glob("residual-*.npy"))


LOSSY = [Codec.BFLOAT16, Codec.FLOAT16, Codec.INT8, Codec.TOPK]


class Changes(Learner):
    """Training adds CHANGE; `seen` has the weights it was given."""

    train_examples = 10
    test_examples = 5
    seen: list[Any] = []

    def initial_weights(self) -> Any:
        return MODEL

    def train(self, weights: Any, task: Any) -> TrainingResult:
        self.seen.append(weights["w"].copy())
        trained = {"w": weights["w"] + CHANGE, "steps": weights["steps"] + np.int64(1)}
        return TrainingResult(trained, examples=10)

    def evaluate(self, weights: Any) -> Evaluation:
        return Evaluation(5, {"mean": float(weights["w"].mean())})


def fresh() -> type[Changes]:
    return type("Changes", (Changes,), {"seen": []})


def train(task_id: str, version: int = 0) -> pb.Task:
    training = pb.Training(epochs=1, batch_size=4, learning_rate=0.1, seed=1)
    return pb.Task(
        task_id=task_id, kind=pb.TASK_KIND_TRAIN, round=version + 1, model_version=version, training=training
    )


def decoded(controller: Any, received: Any) -> dict[str, Any]:
    """An update's tensors; fails unless the header says what it should and the checksum fits."""
    encoding = controller.transport.upload(controller.layout)
    content = np.frombuffer(bytes(received.content), np.uint8)
    assert received.header.kind == pb.UPLOAD_KIND_UPDATE
    assert encoding.mismatch(received.header.sections[0]) is None
    assert received.checksum == frames.section_checksum(content.data)
    assert encoding.flaw(content) is None
    views: dict[str, Any] = controller.layout.views(encoding.decode(content))
    return views


@pytest.mark.parametrize("codec", LOSSY)
async def test_the_update_is_against_the_model_as_received(controller: Any, attach: Any, codec: Codec) -> None:
    controller.transport = Transport(codec, 0.5)
    controller.serve(0, MODEL)
    controller.break_downloads_after = [1]
    learner = fresh()
    async with attach(controller.address, learner):
        controller.tasks.put_nowait(train("t"))
        received = await controller.next_receipted()
    download = controller.transport.download(controller.layout)
    as_received = controller.layout.views(download.decode(download.encode(controller.models[0])))["w"]
    assert learner.seen[0].tobytes() == as_received.tobytes()
    assert controller.download_offsets == [0, CHUNK_BYTES]
    update = decoded(controller, received)
    assert update["steps"] == 8
    # What training changed, up to the rounding of the sum in float32 and to the codec's own bound on 0.01.
    kept = update["w"] != 0 if codec is Codec.TOPK else np.ones(ELEMENTS, bool)
    assert np.abs(update["w"] - CHANGE)[kept].max() <= 2.0**-22 + 0.01 * 2.0**-7
    assert codec is not Codec.TOPK or np.count_nonzero(kept) == ELEMENTS // 2


@pytest.mark.parametrize("codec", [Codec.INT8, Codec.TOPK])
async def test_a_held_update_is_sent_again_byte_for_byte(controller: Any, attach: Any, codec: Codec) -> None:
    """Also when it was accepted before, and TopK's residual has advanced since."""
    controller.transport = Transport(codec, 0.5)
    controller.serve(0, MODEL)
    controller.break_uploads_after = [1]
    async with attach(controller.address, fresh()):
        controller.tasks.put_nowait(train("t"))
        first = await controller.next_receipted()
        assert [upload.start for upload in controller.uploads] == [0, CHUNK_BYTES]
        await controller.stop()
        await controller.start()
        ready = await controller.next_ready()
        while not ready.held_tasks:
            ready = await controller.next_ready()
        controller.tasks.put_nowait(pb.Task(task_id="t", kind=pb.TASK_KIND_RESEND))
        again = await controller.next_receipted()
    assert bytes(again.content) == bytes(first.content)
    assert again.header.sections == first.header.sections
    decoded(controller, again)


@pytest.mark.parametrize("kept", ["in memory", "in a file"])
async def test_topk_makes_up_for_what_it_left_out_once_that_counts(
    controller: Any, attach: Any, tmp_path: Path, kept: str
) -> None:
    controller.transport = Transport(Codec.TOPK, 0.5)
    controller.serve(0, MODEL)
    late = pb.Receipt(outcome=pb.OUTCOME_LATE)
    accepted = pb.Receipt(outcome=pb.OUTCOME_ACCEPTED)
    controller.receipts = [late, accepted, accepted]
    updates = []
    async with attach(controller.address, fresh(), state_dir=tmp_path if kept == "in a file" else None):
        for number in range(3):
            controller.tasks.put_nowait(train(f"t{number}"))
            updates.append(decoded(controller, await controller.next_receipted())["w"].copy())
            # The receipt has been read, and acted on, by the time the learner reports that it is idle.
            controller.heartbeats.clear()
            await controller.heartbeat(lambda beat: beat.activity == pb.ACTIVITY_IDLE)
    assert np.array_equal(updates[0], updates[1])
    # The smaller half was left out by the second; added to itself it is what the third sends of it.
    assert not np.array_equal(updates[1], updates[2])
    once, twice = np.abs(updates[1]), np.abs(updates[2])
    new = (twice > 0) & (once == 0)
    assert np.allclose(updates[2][new], 2 * CHANGE[new], atol=1e-6)
    assert new.sum() > 0
    assert has_residual(tmp_path) == (kept == "in a file")


@pytest.mark.parametrize("codec", [Codec.FLOAT32, Codec.TOPK])
async def test_compression_is_invisible_but_for_the_bytes(controller: Any, attach: Any, codec: Codec) -> None:
    controller.transport = Transport(codec, 0.5, Compression.ZSTD, 1)
    controller.serve(0, {"w": np.zeros(ELEMENTS, np.float32), "steps": MODEL["steps"]})
    controller.break_downloads_after = [1]
    controller.break_uploads_after = [1]

    def half(self: Any, weights: Any, task: Any) -> TrainingResult:
        trained = weights["w"].copy()
        trained[: ELEMENTS // 2] += 0.5
        return TrainingResult({**weights, "w": trained}, examples=10)

    async with attach(controller.address, type("Half", (Changes,), {"train": half})):
        controller.tasks.put_nowait(train("t"))
        received = await controller.next_receipted()
    encoding = controller.transport.upload(controller.layout)
    content = np.frombuffer(bytes(received.content), np.uint8)
    assert received.checksum == frames.section_checksum(content.data)
    sent = controller.layout.views(encoding.decode(content))["w"]
    assert (sent[: ELEMENTS // 2] == 0.5).all()
    assert not sent[ELEMENTS // 2 :].any()
    assert controller.download_offsets == [0, CHUNK_BYTES]
    assert sum(upload.payload for upload in controller.uploads) < len(content) / 2


async def test_other_terms_at_the_next_join_start_over(controller: Any, attach: Any) -> None:
    """A held update in the old codec is of no use to a controller that asks for another."""
    controller.transport = Transport(Codec.INT8)
    controller.serve(0, MODEL)
    async with attach(controller.address, fresh()):
        controller.tasks.put_nowait(train("t"))
        await controller.next_receipted()
        await controller.next_ready()
        await controller.stop()
        controller.transport = Transport(Codec.BFLOAT16)
        controller.tasks_refusals = [(grpc.StatusCode.UNAUTHENTICATED, "who are you?")]
        await controller.start()
        ready = await controller.next_ready()
        assert not ready.held_tasks
        controller.tasks.put_nowait(train("u"))
        decoded(controller, await controller.next_receipted())


async def test_a_codec_that_this_release_does_not_know_ends_the_learner(controller: Any, launch: Any) -> None:
    controller.terms = {"codec": 99}
    process = launch(controller.address, "metisfl_learner.examples.digits:DigitsLearner")
    status, output = await process.finish()
    assert status != 0
    assert "codec 99 is unknown" in output
    assert "use images of one release" in output

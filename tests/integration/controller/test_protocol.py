"""What learners may do wrong, and what the network may do to them, against the real service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames, rpc
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.transport import Transport

ALONE = {"learnerGroups": [{"name": "a", "replicas": 1}]}
LARGE = {"w": np.arange(1_000_000, dtype=np.float32)}
"""Four chunks."""

Served = Callable[..., Any]


def refusal(error: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    return error.value.code(), error.value.details()


# ---- Join


async def test_joins_that_are_refused(served: Served) -> None:
    async with served() as table:
        for name, changes, words in (
            ("a-0", {"protocol_version": 2}, "this controller speaks protocol version 1, the learner 2: use"),
            ("a-0", {"protocol_version": 0}, "protocol version 1, the learner 0"),
            ("b-0", {}, "there is no learner group 'b'; the groups are a"),
            ("a-2", {}, "group 'a' has 2 learners, numbered from 0; a-2 is not one of them"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await table.player(name).join(**changes)
            code, details = refusal(error)
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert words in details
        assert (await table.status())["learners"] == []


@pytest.mark.parametrize(
    ("transport", "abilities", "missing"),
    [
        ({}, {"codecs": []}, "codec Float32"),
        ({"codec": "Int8"}, {"codecs": [model_pb2.CODEC_FLOAT32]}, "codec Int8"),
        ({"compression": {"type": "Zstd"}}, {"compressions": []}, "compression Zstd"),
    ],
)
async def test_a_learner_that_lacks_what_models_travel_with_is_told_what_to_do(
    served: Served, transport: Any, abilities: Any, missing: str
) -> None:
    async with served(transport=transport) as table:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await table.player("a-0").join(**abilities)
        code, details = refusal(error)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"travel with {missing}, which this learner" in details
        assert "use a learner image of the controller's release, or change spec.transport" in details
        # And whoever looks at the federation sees it.
        (learner,) = (await table.status())["learners"]
        assert (learner["id"], learner["activity"], learner["message"]) == ("a-0", "Lost", details)
        # A newer image takes its place, and is told what was agreed on.
        able = {"codecs": list(model_pb2.Codec.values()), "compressions": [model_pb2.COMPRESSION_ZSTD]}
        player = table.player("a-0")
        terms = await player.join(**able)
        compression = transport.get("compression", {"type": "None"})["type"]
        agreed = Transport.of(terms)
        assert (agreed.codec, agreed.compression) == (transport.get("codec", "Float32"), compression)
        (learner,) = (await table.status())["learners"]
        assert learner["message"] == ""


async def test_a_learner_whose_code_cannot_do_what_the_spec_asks_for_is_refused_before_its_first_task(
    served: Served,
) -> None:
    async with served(training={"proximalMu": "0.1"}) as table:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await table.player("a-0").join(capabilities=[])
        code, details = refusal(error)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert details.startswith("training.proximalMu is 0.1, and this learner's class does not add FedProx's term")
        (learner,) = (await table.status())["learners"]
        assert (learner["id"], learner["message"]) == ("a-0", details)
        await table.player("a-0").join(capabilities=[pb.CAPABILITY_PROXIMAL_TERM])


async def test_tasks_carry_steps_and_the_proximal_term(training: Any) -> None:
    async with training(training={"steps": 7, "proximalMu": "0.25"}) as (_, _players, (task,)):
        assert (task.training.epochs, task.training.steps, task.training.proximal_mu) == (0, 7, 0.25)


async def test_a_second_process_takes_the_place_of_the_first(training: Any) -> None:
    async with training("a-0", "a-1") as (_table, (first, _), (task, _)):
        second = _table.player("a-0")
        await second.join()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await first.receive()
        assert refusal(error) == (grpc.StatusCode.FAILED_PRECONDITION, "another process has joined as a-0")
        # The first's lease is worth nothing any more.
        for attempt in (first.upload(task), first.download(0), first.leave()):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await attempt
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # The second gets the very same task.
        await second.open()
        assert (await second.task("TRAIN")).task_id == task.task_id
        await second.delivers(task)


# ---- Tasks


async def test_task_streams_that_begin_wrongly(served: Served) -> None:
    async with served() as table:
        player = table.player("a-0")
        await player.join()
        for message, code, words in (
            (pb.LearnerMessage(), "INVALID_ARGUMENT", "first message of Tasks must be Ready"),
            (pb.LearnerMessage(heartbeat=pb.Heartbeat()), "INVALID_ARGUMENT", "must be Ready"),
            (pb.LearnerMessage(ready=pb.Ready(lease_id="stolen")), "UNAUTHENTICATED", "join again"),
            (pb.LearnerMessage(ready=pb.Ready(lease_id="")), "UNAUTHENTICATED", "join again"),
        ):
            player.tasks = rpc.TASKS.stub(player.channel)()
            await player.tell(message)
            with pytest.raises(grpc.aio.AioRpcError, match=words) as error:
                await player.receive()
            assert error.value.code().name == code


async def test_a_ready_that_nobody_should_send(served: Served) -> None:
    impossible = model_pb2.Tensor(name="w", dtype=model_pb2.DTYPE_FLOAT32, shape=[0, 2**63])
    async with served() as table:
        player = table.player("a-0")
        await player.join()
        for changes, words in (
            ({"layout": model_pb2.Layout()}, "the learner's model: a model needs at least one tensor"),
            ({"layout": model_pb2.Layout(tensors=[impossible])}, "the learner's model: the model has more than"),
            ({"held_tasks": ["x"] * 17}, "more than 16 held tasks"),
        ):
            await player.open(**changes)
            with pytest.raises(grpc.aio.AioRpcError, match=words) as error:
                await player.receive()
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bad_messages_end_the_stream_with_words(training: Any) -> None:
    no_number = model_pb2.Metric(name="loss", value=float("nan"))
    async with training() as (table, (player,), (task,)):
        for message, words in (
            (pb.LearnerMessage(ready=pb.Ready()), "Ready comes once"),
            (pb.LearnerMessage(), "Ready comes once"),
            (pb.LearnerMessage(evaluation=pb.Evaluation(examples=2**64 - 1)), "held-out examples, at most"),
            (pb.LearnerMessage(evaluation=pb.Evaluation(examples=1, metrics=[no_number])), "metric 'loss' is nan"),
        ):
            await player.tell(message)
            with pytest.raises(grpc.aio.AioRpcError, match=words) as error:
                await player.receive()
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            # And the controller goes on as if nothing had happened.
            await player.enter(running=task.task_id)
        await player.delivers(task)
        assert (await table.status())["state"] == "Training"


async def test_bytes_that_are_no_message_end_the_stream(training: Any) -> None:
    """Not even protobuf: the deserialiser itself fails."""
    async with training() as (_, (player,), (task,)):
        raw = player.channel.stream_stream(rpc.TASKS.path)()
        await raw.write(b"\xff\xff\xff")
        assert await asyncio.wait_for(raw.code(), 20) is grpc.StatusCode.INVALID_ARGUMENT
        await player.delivers(task)


async def test_garbage_in_mid_stream_is_not_the_end_of_the_controller(training: Any) -> None:
    async with training() as (table, (player,), (task,)):
        raw = player.channel.stream_stream(rpc.TASKS.path, request_serializer=lambda data: data)()
        lease = (await table.player("a-0").join()).lease.id
        ready = pb.Ready(lease_id=lease, layout=player.layout.to_proto())
        await raw.write(pb.LearnerMessage(ready=ready).SerializeToString())
        assert pb.Task.FromString(await raw.read()).task_id == task.task_id
        await raw.write(b"\xff\xff\xff")
        assert await asyncio.wait_for(raw.code(), 20) is grpc.StatusCode.INVALID_ARGUMENT
        await table.until_status(lambda status: not status["learners"][0]["connected"])
        await player.enter()
        await player.delivers(await player.task("TRAIN"))


async def test_a_reconnected_learner_is_not_given_its_task_twice(training: Any) -> None:
    async with training("a-0", "a-1") as (table, (player, other), (task, others)):
        player.hang_up()
        await table.until_status(lambda status: not status["learners"][0]["connected"])
        await player.open(running=task.task_id)
        await player.delivers(task)
        await other.delivers(others)
        # What comes next is the next round's task, and not the old one once more.
        assert (await player.task("TRAIN")).model_version == 1


async def test_a_layout_that_differs_is_refused_with_names(served: Served) -> None:
    async with served() as table:
        first, second = table.player("a-0"), table.player("a-1", {"w": np.zeros((4, 3), np.float32), "x": np.zeros(1)})
        second.frozen = ()
        await first.enter()
        await second.enter()
        await first.delivers(await first.task("INITIALISE"))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await second.task("TRAIN")
        code, details = refusal(error)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "this learner's model has another layout than the federation's" in details
        assert "tensor 'w' is float32[4, 3], expected float32[3, 4]" in details
        status = await table.until_status(lambda status: status["state"] == "WaitingForLearners")
        refused = next(learner for learner in status["learners"] if learner["id"] == "a-1")
        assert refused["activity"] == "Lost"
        assert "tensor 'w' is float32[4, 3]" in refused["message"]
        # It says the same to one that comes later, and takes one that was mended.
        await second.join()
        await second.open()
        with pytest.raises(grpc.aio.AioRpcError, match="another layout"):
            await second.receive()
        mended = table.player("a-1")
        await mended.enter()
        assert (await mended.task("TRAIN")).model_version == 0


# ---- Download


async def test_downloads_of_what_there_is_not(training: Any) -> None:
    async with training() as (_, (player,), _tasks):
        nbytes = player.layout.nbytes
        for changes, code, words in (
            ({"version": 1}, "NOT_FOUND", "model version 1 is not served; the current one is 0"),
            (
                {"version": 0, "codec": 0},
                "INVALID_ARGUMENT",
                "codec 0 was not agreed on at Join: models go down in Float32",
            ),
            (
                {"version": 0, "offsets": [nbytes + 1]},
                "OUT_OF_RANGE",
                f"not a border between chunks of one section of {nbytes}",
            ),
            ({"version": 0, "offsets": [0, 0]}, "OUT_OF_RANGE", "are not a border"),
            ({"version": 0, "offsets": [2**64 - 1]}, "OUT_OF_RANGE", "are not a border"),
            ({"version": 0, "lease_id": "stolen"}, "UNAUTHENTICATED", "join again"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=words) as error:
                await player.download(**changes)
            assert error.value.code().name == code


async def test_a_download_before_there_is_a_model(served: Served) -> None:
    async with served() as table:
        player = table.player("a-0")
        await player.join()
        with pytest.raises(grpc.aio.AioRpcError, match="model version 0 is not served; there is none"):
            await player.download(0)


async def test_a_broken_download_is_resumed(training: Any) -> None:
    async with training(arrays=LARGE) as (_, (player,), _tasks):
        assert player.layout.nbytes == 4_000_000
        for offset in (CHUNK_BYTES, 3 * CHUNK_BYTES, 4_000_000):
            rest = await player.download(0, offset)
            assert rest[offset:].tobytes() == LARGE["w"].tobytes()[offset:]


# ---- Upload


async def test_a_broken_upload_is_resumed(training: Any) -> None:
    async with training(arrays=LARGE, termination={"maxRounds": 1}) as (table, (player,), (task,)):
        buffer = player.layout.pack({"w": LARGE["w"] * 2})
        sent = 2 * CHUNK_BYTES
        call = player.upload_call()
        await call.send(player.header(task))
        assert (await call.reply()).grant.offsets == [0]
        await call.content(buffer, stop=sent)
        await table.until_status(lambda status: status["bytesReceived"] >= 4_000_000 + sent)
        call.break_off()
        call = player.upload_call()
        await call.send(player.header(task))
        assert (await call.reply()).grant.offsets == [sent]
        await call.content(buffer, sent)
        await call.finish(frames.section_checksum(buffer.data))
        assert (await call.reply()).receipt.outcome == pb.OUTCOME_ACCEPTED
        await player.task("EVALUATE")
        np.testing.assert_array_equal((await player.model(1))["w"], LARGE["w"] * 2)


async def test_an_upload_that_arrived_whole_counts_although_its_stream_broke(training: Any) -> None:
    async with training(arrays=LARGE) as (table, (player,), (task,)):
        buffer = player.layout.pack(LARGE)
        call = player.upload_call()
        await call.send(player.header(task))
        await call.reply()
        await call.content(buffer)
        await call.finish(frames.section_checksum(buffer.data))
        await table.until_status(lambda status: status["bytesReceived"] >= 8_000_000)
        call.break_off()
        receipt = await player.upload(task)
        assert receipt.outcome in (pb.OUTCOME_ACCEPTED, pb.OUTCOME_DUPLICATE, pb.OUTCOME_LATE)
        assert (await player.task("TRAIN")).model_version == 1
        assert (await table.get("/v1/rounds")).json()[0]["contributors"] == ["a-0"]


async def send_whole(call: Any, player: Any, task: pb.Task) -> pb.Receipt:
    """One upload on a stream that may have carried others."""
    content = player.content(task, player.arrays)
    await call.send(player.header(task))
    assert (await call.reply()).grant.offsets == [0]
    await call.content(content)
    await call.finish(frames.section_checksum(content.data))
    return (await call.reply()).receipt


async def test_a_stream_carries_one_model_after_the_other(training: Any) -> None:
    async with training(termination={"maxRounds": 4}) as (_, (player,), (task,)):
        uploads, downloads = player.upload_call(), rpc.DOWNLOAD.stub(player.channel)()
        for version in range(3):
            request = pb.DownloadRequest(lease_id=player.lease, model_version=version, codec=model_pb2.CODEC_FLOAT32)
            await downloads.write(request)
            parts = [await asyncio.wait_for(downloads.read(), 20) for _ in range(3)]
            assert [type(part).__name__ for part in parts] == ["DownloadResponse", "ChunkFrame", "DownloadResponse"]
            assert parts[0].header.model_version == version
            assert (await send_whole(uploads, player, task)).outcome == pb.OUTCOME_ACCEPTED
            task = await player.task("TRAIN")
        await downloads.done_writing()
        assert await asyncio.wait_for(downloads.read(), 20) is grpc.aio.EOF
        assert await downloads.code() is grpc.StatusCode.OK


async def test_a_stream_is_asked_for_its_lease_again_with_every_model(training: Any) -> None:
    async with training() as (table, (player,), (task,)):
        uploads, downloads = player.upload_call(), rpc.DOWNLOAD.stub(player.channel)()
        request = pb.DownloadRequest(lease_id=player.lease, model_version=0, codec=model_pb2.CODEC_FLOAT32)
        await downloads.write(request)
        for _ in range(3):
            await asyncio.wait_for(downloads.read(), 20)
        assert (await send_whole(uploads, player, task)).outcome == pb.OUTCOME_ACCEPTED
        await table.player("a-0").join()
        await downloads.write(request)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(downloads.read(), 20)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await uploads.send(player.header(task))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await uploads.reply()
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_receipt_before_the_finish_ends_the_stream(training: Any) -> None:
    async with training() as (_, (player,), (task,)):
        await player.delivers(task)
        again = player.upload_call()
        await again.send(player.header(task))
        assert (await again.reply()).receipt.outcome == pb.OUTCOME_DUPLICATE
        assert await again.code() is grpc.StatusCode.OK


async def test_what_is_no_header_after_a_receipt_ends_the_stream(training: Any) -> None:
    async with training() as (_, (player,), (task,)):
        call = player.upload_call()
        assert (await send_whole(call, player, task)).outcome == pb.OUTCOME_ACCEPTED
        await call.content(player.content(task, player.arrays))
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_streams_that_are_idle_for_long_are_ended(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from metisfl_controller.server import calls

    async with training() as (_, (player,), (task,)):
        monkeypatch.setattr(calls, "IDLE_SECONDS", 0.2)
        call = player.upload_call()
        assert (await send_whole(call, player, task)).outcome == pb.OUTCOME_ACCEPTED
        assert await call.code() is grpc.StatusCode.OK


async def test_many_streams_of_one_upload_count_once(training: Any) -> None:
    """A learner in panic: whatever the streams do to each other, one contribution comes out, and it is whole."""
    async with training("a-0", "a-1", arrays=LARGE) as (table, (player, other), (task, others)):

        async def attempt() -> None:
            with suppress(grpc.aio.AioRpcError):
                await player.upload(task, {"w": LARGE["w"] + 1})

        await asyncio.gather(*(attempt() for _ in range(5)))
        receipt = await player.upload(task, {"w": LARGE["w"] + 1})
        assert receipt.outcome in (pb.OUTCOME_ACCEPTED, pb.OUTCOME_DUPLICATE)
        await other.delivers(others, {"w": LARGE["w"] + 3})
        await player.task("TRAIN")
        np.testing.assert_array_equal((await player.model(1))["w"], LARGE["w"] + 2)
        assert sorted(x["contributions"] for x in (await table.status())["learners"]) == [1, 1]


async def test_a_damaged_chunk_is_data_loss_and_the_next_attempt_succeeds(training: Any) -> None:
    async with training(arrays=LARGE) as (_, (player,), (task,)):
        buffer = player.layout.pack(LARGE)
        chunks = list(frames.encode_section(0, buffer.data))
        damaged = bytearray(chunks[1])
        damaged[-1] ^= 1
        call = player.upload_call()
        await call.send(player.header(task))
        await call.reply()
        await call.send(chunks[0], bytes(damaged))
        with pytest.raises(grpc.aio.AioRpcError, match="does not fit its checksum") as error:
            await call.reply()
        assert error.value.code() is grpc.StatusCode.DATA_LOSS
        await player.delivers(task)
        assert (await player.task("TRAIN")).model_version == 1


async def test_an_upload_that_is_not_whole_is_data_loss(training: Any) -> None:
    async with training(arrays=LARGE) as (_, (player,), (task,)):
        buffer = player.layout.pack(LARGE)
        for damage in ("checksum", "missing", "order", "header again"):
            call = player.upload_call()
            await call.send(player.header(task))
            assert (await call.reply()).grant.offsets == [0]
            if damage == "checksum":
                await call.content(buffer)
                await call.finish(1)
            elif damage == "missing":
                await call.content(buffer, stop=2 * CHUNK_BYTES)
                await call.finish(frames.section_checksum(buffer.data[: 2 * CHUNK_BYTES]))
            elif damage == "order":
                await call.content(buffer, start=CHUNK_BYTES)
            else:
                await call.send(player.header(task))
            # grpc.aio says INTERNAL to a client that was still writing when the server broke off.
            assert await call.code() in (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL)
        await player.delivers(task)


async def test_an_update_with_nan_is_refused_and_named(training: Any) -> None:
    spec = {"protocol": {"synchronous": {"quorumPercent": 50}}}
    async with training("a-0", "a-1", **spec) as (table, (bad, good), (task, other)):
        spoiled = {**bad.arrays, "w": np.full((3, 4), np.nan, np.float32)}
        receipt = await bad.upload(task, spoiled)
        assert (receipt.outcome, receipt.message) == (pb.OUTCOME_REJECTED, "tensor 'w' holds NaN or infinity")
        learner = (await table.status())["learners"][0]
        assert learner["message"] == "update refused: tensor 'w' holds NaN or infinity"
        # Not asked for again in this round, and not waited for.
        assert (await bad.upload(task)).outcome == pb.OUTCOME_LATE
        await good.delivers(other)
        assert (await bad.task("TRAIN")).model_version == 1
        record = (await table.get("/v1/rounds")).json()[0]
        assert (record["contributors"], record["lost"]) == (["a-1"], ["a-0"])


async def test_initial_weights_with_nan_are_refused_and_the_next_learner_is_asked(served: Served) -> None:
    async with served() as table:
        bad, good = table.player("a-0"), table.player("a-1")
        await bad.enter()
        await good.enter()
        spoiled = {**bad.arrays, "w": np.full((3, 4), np.inf, np.float32)}
        receipt = await bad.upload(await bad.task("INITIALISE"), spoiled)
        assert receipt.outcome == pb.OUTCOME_REJECTED
        await good.delivers(await good.task("INITIALISE"))
        assert (await bad.task("TRAIN")).model_version == 0


async def test_a_header_that_is_refused_is_not_waited_for(training: Any) -> None:
    """Each round has one good learner and one whose header is refused; half of them is the quorum."""
    no_number = model_pb2.Metric(name="loss", value=float("inf"))
    spec = {"protocol": {"synchronous": {"quorumPercent": 50}}}
    async with training("a-0", "a-1", termination={"maxRounds": 9}, **spec) as (table, (bad, good), (task, other)):
        for version, (changes, words) in enumerate(
            (
                ({"examples": 0}, "0 training examples"),
                ({"kind": 0}, "upload kind 0"),
                ({"sections": []}, "expected section 'model', got none"),
                ({"report": pb.TrainingReport(examples=1, batches=1, metrics=[no_number])}, "metric 'loss' is inf"),
            ),
            start=1,
        ):
            receipt = await bad.upload(task, **changes)
            assert receipt.outcome == pb.OUTCOME_REJECTED
            assert words in receipt.message
            assert words in (await table.status())["learners"][0]["message"]
            await good.delivers(other)
            task, other = await bad.task("TRAIN"), await good.task("TRAIN")
            assert task.model_version == other.model_version == version


async def test_an_upload_of_another_layout_is_refused_with_names(training: Any) -> None:
    async with training() as (_, (player,), (task,)):
        player.arrays = {**player.arrays, "w": np.zeros(12, np.float32)}
        receipt = await player.upload(task)
        assert receipt.outcome == pb.OUTCOME_REJECTED
        assert "tensor 'w' is float32[12], expected float32[3, 4]" in receipt.message


async def test_uploads_that_are_none_of_the_senders_business(training: Any) -> None:
    async with training("a-0", "a-1") as (_, (player, _other), (task, others)):
        first_message = pb.UploadRequest(finish=model_pb2.Finish())
        for message, code, words in (
            (player.header(others), "PERMISSION_DENIED", "the task belongs to a-1"),
            (player.header(task, lease_id="stolen"), "UNAUTHENTICATED", "join again"),
            (player.header(task, task_id="no task"), "INVALID_ARGUMENT", "not a task id: 'no task'"),
            (player.header(task, task_id="x" * 100_000), "INVALID_ARGUMENT", "not a task id"),
            (player.header(task, base_version=5), "INVALID_ARGUMENT", "base_version is not the task's"),
            (first_message, "INVALID_ARGUMENT", "must begin with its header"),
            (frames.encode_chunk(0, 0, memoryview(b"x")), "INVALID_ARGUMENT", "must begin with its header"),
            (b"\xff\xff", "INVALID_ARGUMENT", "must begin with its header"),
        ):
            call = player.upload_call()
            await call.send(message)
            with pytest.raises(grpc.aio.AioRpcError, match=words) as error:
                await call.reply()
            assert error.value.code().name == code
        # Tasks that are over, or never were.
        known = task.task_id.split("/")
        for place, other in ((1, "99"), (3, "0"), (5, "2"), (0, "another-uid"), (2, "evaluate")):
            if other != known[place]:
                stale = "/".join([*known[:place], other, *known[place + 1 :]])
                assert (await player.upload(task, task_id=stale)).outcome == pb.OUTCOME_LATE
        await player.delivers(task)
        assert (await player.upload(task)).outcome == pb.OUTCOME_DUPLICATE


async def test_an_initial_model_that_nothing_can_hold_is_refused(served: Served) -> None:
    async with served(**ALONE) as table:
        player = table.player("a-0")
        await player.enter()
        task = await player.task("INITIALISE")
        huge = model_pb2.Layout(tensors=[model_pb2.Tensor(name="w", dtype=2, shape=[2**38])])
        call = player.upload_call()
        section = model_pb2.Section(name="model", codec=1, layout=huge, encoded_bytes=2**40)
        await call.send(player.header(task, sections=[section]))
        # A machine may promise that much memory without having it; then the upload begins, and that is all.
        with suppress(grpc.aio.AioRpcError):
            assert (await call.reply()).grant.offsets == [0]
            call.break_off()
        assert await call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        await player.delivers(task)
        assert (await player.task("TRAIN")).model_version == 0


async def test_a_message_beyond_the_limit_is_refused(training: Any) -> None:
    async with training() as (table, (player,), (task,)):
        options = (("grpc.max_send_message_length", -1),)
        async with grpc.aio.insecure_channel(table.grpc, options=options) as channel:
            call = channel.stream_stream(rpc.UPLOAD.path)()
            await call.write(player.header(task).SerializeToString() + b"\x00" * (5 << 20))
            assert await asyncio.wait_for(call.code(), 20) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await player.delivers(task)


# ---- learners that are lost


async def test_a_silent_learner_is_lost_and_the_round_goes_on(training: Any) -> None:
    spec = {"protocol": {"synchronous": {"quorumPercent": 50}}}
    async with training("a-0", "a-1", lease_seconds=2, **spec) as (table, (player, silent), (task, old)):

        async def heartbeats() -> None:
            while True:
                await player.tell(pb.LearnerMessage(heartbeat=pb.Heartbeat(activity=pb.ACTIVITY_TRAINING, progress=2)))
                await asyncio.sleep(0.3)

        beating = asyncio.create_task(heartbeats())
        silent.hang_up()
        await player.delivers(task)
        # Closes at once when the lease has run out, long before the round's deadline of 600 s.
        assert (await player.task("TRAIN")).model_version == 1
        learners = {learner["id"]: learner for learner in (await table.status())["learners"]}
        assert learners["a-1"]["message"] == "silent for more than 2 s"
        assert (learners["a-0"]["activity"], learners["a-0"]["progress"]) == ("Training", 1.0)
        assert (await table.get("/v1/rounds")).json()[0]["lost"] == ["a-1"]
        # Its old lease is over.
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await silent.upload(old)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await silent.enter()
        beating.cancel()


async def test_a_learner_that_leaves_with_an_error_is_shown_and_not_waited_for(training: Any) -> None:
    spec = {"protocol": {"synchronous": {"quorumPercent": 50}}}
    async with training("a-0", "a-1", **spec) as (table, (player, leaver), (task, _)):
        await player.delivers(task)
        await leaver.leave("ImportError: no module named 'data'")
        assert (await player.task("TRAIN")).model_version == 1
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await leaver.receive()
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        left = (await table.status())["learners"][1]
        assert (left["activity"], left["message"]) == ("Lost", "ImportError: no module named 'data'")


async def test_a_failed_task_is_shown(training: Any) -> None:
    async with training("a-0", "a-1") as (table, (player, _other), (task, others)):
        for task_id, shown in ((task.task_id, "ValueError: x"), (others.task_id, "not mine"), ("nonsense", "?")):
            await player.tell(pb.LearnerMessage(failure=pb.TaskFailure(task_id=task_id, message=shown)))
            await table.until_status(lambda status, shown=shown: status["learners"][0]["message"] == shown)
        status = await table.status()
        assert status["round"]["participants"] == 2
        await _other.delivers(others)


async def test_a_late_learner_is_closed_out_at_the_deadline(training: Any) -> None:
    spec = {"protocol": {"synchronous": {"quorumPercent": 50, "roundDeadlineSeconds": 1}}}
    async with training("a-0", "a-1", **spec) as (_, (player, late), (task, old)):
        await player.delivers(task)
        assert (await late.task("DISCARD")).task_id == old.task_id
        assert (await late.upload(old)).outcome == pb.OUTCOME_LATE


async def test_a_round_without_quorum_fails_and_says_who_is_missing(training: Any) -> None:
    spec = {"protocol": {"synchronous": {"roundDeadlineSeconds": 1}}}
    async with training("a-0", "a-1", **spec) as (table, (player, late), (task, _)):
        await player.delivers(task)
        assert (await late.task("DISCARD")).reason == "the federation has ended"
        assert (await late.task("STOP")).reason.startswith("Failed: round 1: 1 of 2 learners delivered in 3 attempts")
        status = await table.status()
        assert (status["state"], status["reason"]) == ("Failed", "QuorumNotReached")
        assert status["message"].endswith("missing: a-1")
        assert status["globalModel"]["version"] == 0


async def test_too_few_learners_after_the_target_is_reached_still_completes(training: Any) -> None:
    spec = {"termination": {"maxRounds": 50, "targetMetric": {"name": "accuracy", "atLeast": "0.9"}}}
    async with training("a-0", "a-1", **spec) as (table, players, tasks):
        for player, task, accuracy in zip(players, tasks, (0.85, 1.0), strict=True):
            await player.evaluate(task, accuracy=accuracy)
        for player in players:
            assert (await player.task("DISCARD")).model_version == 0
            assert "version 0 reached accuracy ≥ 0.9" in (await player.task("STOP")).reason
        status = await table.status()
        assert (status["reason"], status["globalModel"]["version"]) == ("TargetMetricReached", 0)
        assert (await table.get("/v1/models")).json()[0]["published"]

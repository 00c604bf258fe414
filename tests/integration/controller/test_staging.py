"""Uploads that compete for room, over real gRPC: nobody is refused, nobody starves, and order can be kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.layout import Buffer
from metisfl.wire.limits import CHUNK_BYTES
from metisfl_controller.aggregation import admission
from metisfl_controller.server import upload_call

LARGE = {"w": np.arange(1_000_000, dtype=np.float32)}
"""Four chunks. Sums and models take 20 MB of a budget, each slot 4 MB."""

ONE_SLOT, THREE_SLOTS, ON_DISK = "24M", "32M", "1M"


def learners(count: int) -> list[str]:
    return [f"a-{number}" for number in range(count)]


def memory(budget: str) -> dict[str, Any]:
    return {"memoryBudget": budget}


async def begun(player: Any, task: pb.Task, buffer: Buffer, chunks: int = 1) -> Any:
    """An upload that was let in and has sent some chunks."""
    call = player.upload_call()
    await call.send(player.header(task))
    assert (await call.reply()).grant.offsets == [0]
    await call.content(buffer, stop=chunks * CHUNK_BYTES)
    return call


async def end(call: Any, buffer: Buffer, start: int) -> pb.Receipt:
    await call.content(buffer, start)
    await call.finish(frames.section_checksum(buffer.data))
    return (await call.reply()).receipt


@pytest.mark.parametrize("budget", [THREE_SLOTS, ON_DISK])
async def test_stalled_uploads_do_not_delay_others(training: Any, budget: str) -> None:
    """Eight begin and stall, twenty come after them; in the end all 28 count."""
    names = learners(28)
    async with training(*names, arrays=LARGE, controller=memory(budget)) as (table, players, tasks):
        content = [player.layout.pack({"w": LARGE["w"] + n}) for n, player in enumerate(players)]
        stalled = [asyncio.create_task(begun(*each)) for each in zip(players[:8], tasks[:8], content[:8], strict=True)]
        await table.until_status(lambda status: status["bytesReceived"] > 4_000_000)
        await asyncio.gather(
            *(players[n].delivers(tasks[n], {"w": LARGE["w"] + n}) for n in range(8, 28)),
        )
        calls = await asyncio.gather(*stalled)
        for call, buffer in zip(calls, content[:8], strict=True):
            assert (await end(call, buffer, CHUNK_BYTES)).outcome == pb.OUTCOME_ACCEPTED
        await players[0].task("TRAIN")
        np.testing.assert_array_equal((await players[0].model(1))["w"], LARGE["w"] + 13.5)


async def test_a_stalled_upload_goes_on_where_it_was_after_it_lost_its_place(training: Any) -> None:
    async with training("a-0", "a-1", arrays=LARGE, controller=memory(ONE_SLOT)) as (table, players, tasks):
        buffer = players[0].layout.pack({"w": LARGE["w"] + 2})
        call = await begun(players[0], tasks[0], buffer, chunks=2)
        await table.until_status(lambda status: status["bytesReceived"] >= 4_000_000 + 2 * CHUNK_BYTES)
        await players[1].delivers(tasks[1])
        call.break_off()
        call = players[0].upload_call()
        await call.send(players[0].header(tasks[0]))
        assert (await call.reply()).grant.offsets == [2 * CHUNK_BYTES]
        assert (await end(call, buffer, 2 * CHUNK_BYTES)).outcome == pb.OUTCOME_ACCEPTED
        await players[0].task("TRAIN")
        np.testing.assert_array_equal((await players[0].model(1))["w"], LARGE["w"] + 1)


class TestWaiting:
    """One slot, and nobody is moved out of it."""

    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admission, "WATCH_SECONDS", 1e9)

    async def test_waiting_is_no_stall_and_no_silence(self, training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Longer than a lease, and than a stream may be silent."""
        monkeypatch.setattr(upload_call, "STALLED_SECONDS", 1.5)
        async with training("a-0", "a-1", arrays=LARGE, lease_seconds=2, controller=memory(ONE_SLOT)) as table:
            _, players, tasks = table
            buffer = players[0].layout.pack(LARGE)
            call = await begun(players[0], tasks[0], buffer)
            waiting = asyncio.create_task(players[1].upload(tasks[1]))
            for position in (1, 2):
                await asyncio.sleep(1.2)
                await call.content(buffer, position * CHUNK_BYTES, (position + 1) * CHUNK_BYTES)
            await asyncio.sleep(1.2)
            assert not waiting.done()
            assert (await end(call, buffer, 3 * CHUNK_BYTES)).outcome == pb.OUTCOME_ACCEPTED
            assert (await waiting).outcome == pb.OUTCOME_ACCEPTED

    async def test_who_hangs_up_while_waiting_leaves_the_queue(self, training: Any) -> None:
        async with training(*learners(3), arrays=LARGE, controller=memory(ONE_SLOT)) as (_, players, tasks):
            buffer = players[0].layout.pack(LARGE)
            call = await begun(players[0], tasks[0], buffer)
            waits = players[1].upload_call()
            await waits.send(players[1].header(tasks[1]))
            last = asyncio.create_task(players[2].upload(tasks[2]))
            waits.break_off()
            assert (await end(call, buffer, CHUNK_BYTES)).outcome == pb.OUTCOME_ACCEPTED
            assert (await last).outcome == pb.OUTCOME_ACCEPTED
            await players[1].delivers(tasks[1])

    async def test_the_learner_that_asks_again_takes_its_own_place(self, training: Any) -> None:
        async with training(*learners(3), arrays=LARGE, controller=memory(ONE_SLOT)) as (_, players, tasks):
            buffer = players[0].layout.pack(LARGE)
            call = await begun(players[0], tasks[0], buffer)
            before = players[1].upload_call()
            await before.send(players[1].header(tasks[1]))
            other = asyncio.create_task(players[2].upload(tasks[2]))
            again = asyncio.create_task(players[1].upload(tasks[1]))
            assert (await before.reply()).receipt.message == "another stream has taken over this upload"
            assert (await end(call, buffer, CHUNK_BYTES)).outcome == pb.OUTCOME_ACCEPTED
            assert (await again).outcome == pb.OUTCOME_ACCEPTED
            assert (await other).outcome == pb.OUTCOME_ACCEPTED

    async def test_who_waits_when_the_round_closes_is_told(self, training: Any) -> None:
        protocol = {"synchronous": {"quorumPercent": 30, "roundDeadlineSeconds": 1}}
        async with training(*learners(3), arrays=LARGE, controller=memory(ONE_SLOT), protocol=protocol) as made:
            _, players, tasks = made
            await players[0].delivers(tasks[0])
            await begun(players[1], tasks[1], players[1].layout.pack(LARGE))
            waits = players[2].upload_call()
            await waits.send(players[2].header(tasks[2]))
            receipt = (await waits.reply()).receipt
            assert (receipt.outcome, receipt.message) == (pb.OUTCOME_LATE, "the round has closed")


async def test_a_model_larger_than_the_budget_survives_a_restart(controller: Callable[..., Any]) -> None:
    process = controller(
        learnerGroups=[{"name": "a", "replicas": 2}], controller=memory(ON_DISK), termination={"maxRounds": 3}
    )
    table = await process.start()
    for version in range(2):
        players = [table.player(name, LARGE, ()) for name in learners(2)]
        for player in players:
            await player.enter()
        if version == 0:
            await players[0].delivers(await players[0].task("INITIALISE"))
        tasks = [await player.task("TRAIN") for player in players]
        found = (await players[1].model(version))["w"]
        np.testing.assert_array_equal(found, LARGE["w"] + 2 * version)
        await asyncio.gather(
            players[0].delivers(tasks[0], {"w": found + 1}), players[1].delivers(tasks[1], {"w": found + 3})
        )
        await table.until_status(lambda status, version=version: status["globalModel"]["version"] == version + 1)
        await process.kill()
        table = await process.start()


async def test_a_model_larger_than_the_budget_is_never_in_memory(controller: Callable[..., Any]) -> None:
    """Sums would be 200 MB, and each model is 100 MB: what the process has beside files grows by less than one."""
    huge = {"w": np.zeros(25_000_000, np.float32)}
    huge["w"][::1000] = 1
    process = controller(learnerGroups=[{"name": "a", "replicas": 3}], controller=memory(ON_DISK))
    table = await process.start()
    players = [table.player(name, huge, ()) for name in learners(3)]
    for player in players:
        await player.enter()
    before, peak = anonymous_bytes(process), 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, anonymous_bytes(process))
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    await players[0].delivers(await players[0].task("INITIALISE"))
    tasks = [await player.task("TRAIN") for player in players]
    # One after the other: how much gRPC reads ahead of each stream on a busy machine is not what is asked here.
    for player, task in zip(players, tasks, strict=True):
        await player.delivers(task)
    await players[0].task("TRAIN")
    found = (await players[0].model(1))["w"]
    watching.cancel()
    np.testing.assert_array_equal(found, huge["w"])
    assert peak - before < huge["w"].nbytes


def anonymous_bytes(process: Any) -> int:
    lines = Path(f"/proc/{process.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


# ---- streams that break the rules free their place


def _chunk(buffer: Buffer, number: int, **changes: int) -> pb.UploadRequest:
    data = buffer.data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
    values = {"section": 0, "offset": number * CHUNK_BYTES, "checksum": frames.checksum(data), **changes}
    chunk = model_pb2.Chunk(**values, data=bytes(data))
    return pb.UploadRequest(chunk=chunk)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: [_chunk(b, 0)], "came where 1048576 at 1048576 of section 0 were next"),
        (lambda b: [_chunk(b, 2)], "a chunk of 1048576 bytes at 2097152"),
        (lambda b: [_chunk(b, 1, offset=2**64 - 1)], "at 18446744073709551615 of section 0 came"),
        (lambda b: [_chunk(b, 1, offset=4 * CHUNK_BYTES)], "came where"),
        (lambda b: [_chunk(b, 1, section=1)], "of section 1 came"),
        (lambda b: [_chunk(b, 1, checksum=1)], "does not fit its checksum"),
        (lambda b: [_chunk(b, 1), _chunk(b, 2), _chunk(b, 3), _chunk(b, 3)], "came where 0 at 4000000"),
        (lambda b: [pb.UploadRequest(finish=model_pb2.Finish())], "ended after 1048576 of 4000000 bytes"),
    ],
)
async def test_chunks_that_do_not_belong_there_are_data_loss_and_disturb_nobody(
    training: Any, damage: Callable[[Buffer], list[pb.UploadRequest]], words: str
) -> None:
    """With one slot, the other learner's upload can only come in when the broken one makes room."""
    async with training("a-0", "a-1", arrays=LARGE, controller=memory(ONE_SLOT)) as (_, players, tasks):
        buffer = players[0].layout.pack(LARGE)
        call = await begun(players[0], tasks[0], buffer)
        # As any protobuf client writes them.
        await call.send(*(message.SerializeToString() for message in damage(buffer)))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.reply()
        assert error.value.code() is grpc.StatusCode.DATA_LOSS
        assert words in error.value.details()
        await players[1].delivers(tasks[1])
        await players[0].delivers(tasks[0])
        await players[0].task("TRAIN")
        np.testing.assert_array_equal((await players[0].model(1))["w"], LARGE["w"])


async def test_a_stream_that_stops_is_broken_off_and_may_go_on(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_call, "STALLED_SECONDS", 0.3)
    async with training(arrays=LARGE) as (_, (player,), (task,)):
        buffer = player.layout.pack(LARGE)
        call = await begun(player, task, buffer)
        with pytest.raises(grpc.aio.AioRpcError, match=r"nothing arrived for 0\.3 s") as error:
            await call.reply()
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        call = player.upload_call()
        await call.send(player.header(task))
        assert (await call.reply()).grant.offsets == [CHUNK_BYTES]
        assert (await end(call, buffer, CHUNK_BYTES)).outcome == pb.OUTCOME_ACCEPTED


async def test_an_upload_ends_with_its_lease(training: Any) -> None:
    async with training("a-0", "a-1", arrays=LARGE) as (_, players, tasks):
        buffer = players[0].layout.pack(LARGE)
        call = await begun(players[0], tasks[0], buffer)
        await players[0].leave()
        # One message: gRPC reports a write that meets the end of the call as an error of its own.
        await call.content(buffer, CHUNK_BYTES, 2 * CHUNK_BYTES)
        with pytest.raises(grpc.aio.AioRpcError, match="the lease has ended: join again") as error:
            await call.reply()
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await players[1].delivers(tasks[1])


# ---- deterministic mode

TERMS = np.random.default_rng(7).normal(size=(6, 500_000)) * np.float64(10.0) ** np.arange(6)[:, None]
"""Updates in float64, of such sizes that the order of adding them shows."""


@pytest.mark.parametrize("order", [[5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]])
async def test_whatever_the_order_of_arrival_the_model_is_the_same(training: Any, order: list[int]) -> None:
    """Uploads in reverse order complete although only a part of them fits into memory."""
    total, backwards = np.zeros(TERMS.shape[1]), np.zeros(TERMS.shape[1])
    for number in range(6):
        total += (number + 1.0) * TERMS[number]
        backwards += (6.0 - number) * TERMS[5 - number]
    assert (total != backwards).any(), "these terms would not show their order"
    spec = {"controller": memory(THREE_SLOTS), "aggregation": {"deterministic": True}}
    async with training(*learners(6), arrays={"w": TERMS[0]}, **spec) as (_, players, tasks):

        async def model(version: int, order: list[int]) -> Buffer:
            for number in order:
                await players[number].delivers(tasks[number], {"w": TERMS[number]}, examples=number + 1)
            tasks[:] = [await player.task("TRAIN" if version == 1 else "EVALUATE") for player in players]
            return (await players[0].model(version))["w"]

        first = await model(1, order)
        second = await model(2, [0, 1, 2, 3, 4, 5])
        np.testing.assert_allclose(first, total / 21, rtol=1e-9)
        assert first.tobytes() == second.tobytes()


async def test_a_round_without_some_of_its_learners_is_committed_in_order(training: Any) -> None:
    """The first learner never delivers: those behind it are held back until the deadline, and then added."""
    protocol = {"synchronous": {"quorumPercent": 50, "roundDeadlineSeconds": 2}}
    spec = {"protocol": protocol, "aggregation": {"deterministic": True}, "termination": {"maxRounds": 2}}
    async with training(*learners(3), arrays=LARGE, controller=memory(ONE_SLOT), **spec) as (_, players, tasks):
        await players[2].delivers(tasks[2], {"w": LARGE["w"] + 2})
        await players[1].delivers(tasks[1], {"w": LARGE["w"] + 4})
        await players[1].task("TRAIN")
        np.testing.assert_array_equal((await players[1].model(1))["w"], LARGE["w"] + 3)

"""SCAFFOLD over gRPC: two sections a transfer, resumed, checked and accepted together; c outlives the controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl.wire.control import STAMP, Stamp, control_layout
from metisfl.wire.layout import Buffer
from metisfl.wire.limits import CHUNK_BYTES

SCAFFOLD = {"rule": "Scaffold", "weighting": "Participants"}
# Each section has two chunks.
ARRAYS = {"w": np.linspace(-1, 1, CHUNK_BYTES // 4 + 10, dtype=np.float32)}


def contents(player: Any, task: Any, model: Any, change: float, stamp: Stamp) -> list[Buffer]:
    """Both sections of a result: this model, and this much for every element of the control variate."""
    layout = control_layout(player.layout)
    control = layout.allocate()
    layout.views(control)["w"][...] = change
    stamp.write(layout, control)
    return [player.content(task, {"w": model}), control]


async def deliver(player: Any, task: Any, parts: list[Buffer], breaks: tuple[int, ...] = (), **header: Any) -> Any:
    """Upload both sections; the stream breaks off after each of so many chunks, and goes on where it is told to."""
    for chunks in (*breaks, None):
        call = player.upload_call()
        await call.send(player.header(task, **header))
        reply = await call.reply()
        if not reply.HasField("grant"):
            return reply.receipt
        messages = [
            message
            for section, (part, offset) in enumerate(zip(parts, reply.grant.offsets, strict=True))
            for message in frames.encode_section(section, part.data, offset)
        ]
        if chunks is not None:
            await call.send(*messages[:chunks])
            await call.call.done_writing()
            assert await call.code() is grpc.StatusCode.DATA_LOSS
            continue
        await call.send(*messages)
        await call.finish(*(frames.section_checksum(part.data) for part in parts))
        return (await call.reply()).receipt
    raise AssertionError("unreachable")


def variate(player: Any) -> Any:
    return control_layout(player.layout).views(player.control)


@pytest.mark.parametrize("breaks", [(), (1,), (3,)], ids=["whole", "in the model", "in the control variate"])
async def test_both_sections_count_wherever_the_stream_breaks(training: Any, breaks: tuple[int, ...]) -> None:
    async with training("a-0", "a-1", arrays=ARRAYS, aggregation=SCAFFOLD) as (_, players, tasks):
        for number, (player, task) in enumerate(zip(players, tasks, strict=True)):
            model = await player.model(0)
            assert not variate(player)["w"].any()
            assert variate(player)[STAMP].tolist() == [1, 0, 0]
            parts = contents(player, task, model["w"] + number, 3.0 * number, Stamp(1, 0, 1))
            receipt = await deliver(player, task, parts, breaks)
            assert receipt.outcome == pb.OUTCOME_ACCEPTED, receipt
        for player in players:
            await player.task("TRAIN")
            model = await player.model(1)
            np.testing.assert_allclose(model["w"], ARRAYS["w"] + 0.5, atol=1e-6)
            assert (variate(player)["w"] == 1.5).all()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"sections": slice(0, 1)}, "expected section 'model', 'control', got 'model'"),
        ({"sections": slice(None, None, -1)}, "expected section 'model', 'control', got 'control', 'model'"),
    ],
)
async def test_a_result_without_its_control_variate_is_refused(training: Any, spoil: Any, words: str) -> None:
    async with training(arrays=ARRAYS, aggregation=SCAFFOLD) as (_, (player,), (task,)):
        announced = player.header(task).header.sections
        receipt = await player.upload(task, sections=list(announced)[spoil["sections"]])
        assert receipt.outcome == pb.OUTCOME_REJECTED
        assert words in receipt.message


async def test_a_control_variate_that_is_not_finite_spoils_the_whole_upload(training: Any) -> None:
    spec = {"aggregation": SCAFFOLD, "protocol": {"synchronous": {"quorumPercent": 50}}}
    async with training("a-0", "a-1", arrays=ARRAYS, **spec) as (table, players, tasks):
        models = [(await player.model(0))["w"] for player in players]
        bad = contents(players[1], tasks[1], models[1] + 9, np.nan, Stamp(1, 0, 1))
        receipt = await deliver(players[1], tasks[1], bad)
        assert receipt.outcome == pb.OUTCOME_REJECTED
        assert receipt.message == "section 'control': tensor 'w' holds NaN or infinity"
        good = contents(players[0], tasks[0], models[0] + 1, 2.0, Stamp(1, 0, 1))
        assert (await deliver(players[0], tasks[0], good)).outcome == pb.OUTCOME_ACCEPTED
        await table.until_status(lambda status: status["committedRounds"] == 1)
        model = await players[0].model(1)
        np.testing.assert_allclose(model["w"], ARRAYS["w"] + 1, atol=1e-6)
        assert (variate(players[0])["w"] == 2).all()


async def test_a_download_goes_on_in_the_control_variate(training: Any) -> None:
    async with training(arrays=ARRAYS, aggregation=SCAFFOLD) as (_, (player,), _tasks):
        whole = await player.download(0)
        model = player.transport.download_sections(player.layout).sizes[0]
        rest = await player.download(0, model)
        assert rest[model:].tobytes() == whole[model:].tobytes()
        with pytest.raises(grpc.aio.AioRpcError, match="not a border between chunks of 2 sections"):
            await player.download(0, offsets=[0, 7])


async def test_the_global_variate_outlives_the_controller(controller: Callable[..., Any]) -> None:
    process = controller(
        learnerGroups=[{"name": "a", "replicas": 1}], aggregation=SCAFFOLD, termination={"maxRounds": 3}
    )
    table = await process.start()
    player = table.player("a-0", {"w": np.zeros(4, np.float32)}, ())
    await player.enter()
    await player.delivers(await player.task("INITIALISE"))
    task = await player.task("TRAIN")
    model = await player.model(0)
    parts = contents(player, task, model["w"] + 1, 0.25, Stamp(1, 0, 1))
    assert (await deliver(player, task, parts)).outcome == pb.OUTCOME_ACCEPTED
    await player.task("TRAIN")
    await process.kill()

    table = await process.start()
    again = table.player("a-0", {"w": np.zeros(4, np.float32)}, ())
    await again.enter()
    task = await again.task("TRAIN")
    model = await again.model(1)
    assert variate(again)["w"].tolist() == [0.25] * 4
    # What the learner remembers still leads on from it.
    parts = contents(again, task, model["w"], 0.5, Stamp(1, 1, 2))
    assert (await deliver(again, task, parts)).outcome == pb.OUTCOME_ACCEPTED
    await again.task("TRAIN")
    await again.model(2)
    assert variate(again)["w"].tolist() == [0.75] * 4
    assert variate(again)[STAMP].tolist() == [1, 0, 0]


async def test_a_learner_that_knows_no_control_variates_is_refused(served: Callable[..., Any]) -> None:
    async with served(aggregation=SCAFFOLD) as table:
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"aggregation.rule is Scaffold, and this learner's class does not"
        ):
            await table.player("a-0").join(capabilities=[pb.CAPABILITY_PROXIMAL_TERM])
        assert (await table.player("a-0").join(capabilities=[pb.CAPABILITY_CONTROL_VARIATES])).control

"""Models in every codec, from the controller's side: what it makes of the updates, and what it refuses."""

from __future__ import annotations

import threading
from typing import Any

import grpc.aio
import numpy as np
import pytest
from safetensors.numpy import load, load_file

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl.wire.codecs import Codec
from metisfl.wire.limits import CHUNK_BYTES
from tests.integration.controller.conftest import Player, until

ELEMENTS = 400_000
NOISE = np.random.default_rng(5).normal(size=(2, ELEMENTS)).astype(np.float32)
MODEL = {
    "w": np.random.default_rng(4).normal(size=ELEMENTS).astype(np.float32),
    "steps": np.array([3, 4]),
    "wide": np.linspace(-1, 1, 70),
}
LOSSY = [codec for codec in Codec if not codec.lossless]


def trained(received: dict[str, Any], which: int) -> dict[str, Any]:
    return {
        "w": received["w"] + np.float32(0.01) * NOISE[which],
        "steps": received["steps"] + 2 * which,
        "wide": received["wide"] * 1.5,
    }


def updates(player: Player, task: pb.Task, result: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the controller will see of a result, decoded."""
    return player.layout.views(player.encoding(task).decode(player.content(task, result)))


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("budget", ["1G", "1M"])
async def test_updates_are_added_to_what_the_learners_received(training: Any, codec: Codec, budget: str) -> None:
    """In memory, and in files where the budget has no room for a single model."""
    spec = {"transport": {"codec": codec}, "termination": {"maxRounds": 2}, "controller": {"memoryBudget": budget}}
    async with training("a-0", "a-1", arrays=MODEL, **spec) as (table, players, tasks):
        for version in range(2):
            models = [await player.model(version) for player in players]
            np.testing.assert_array_equal(models[0]["w"], models[1]["w"])
            results = [trained(model, which) for which, model in enumerate(models)]
            seen = [updates(*of) for of in zip(players, tasks, results, strict=True)]
            for player, task, result, examples in zip(players, tasks, results, (10, 30), strict=True):
                await player.delivers(task, result, examples=examples)
            await table.until_status(lambda status, done=version + 1: status["committedRounds"] == done)
            mean = {
                name: (10 * seen[0][name].astype(np.float64) + 30 * seen[1][name].astype(np.float64)) / 40
                for name in ("w", "wide", "steps")
            }
            stored = await stored_model(table, version + 1)
            np.testing.assert_allclose(stored["w"], models[0]["w"] + mean["w"], rtol=2e-7, atol=1e-9)
            np.testing.assert_allclose(stored["wide"], models[0]["wide"] + mean["wide"], rtol=1e-7)
            np.testing.assert_array_equal(stored["steps"], np.rint(mean["steps"]))
            if version == 0:
                tasks = [await player.task("TRAIN") for player in players]
        # The last version is the exact mean, on disk; learners get it in the codec.
        final = [await player.task("EVALUATE") for player in players]
        received = await players[0].model(2)
        expected = players[0].transport.download(players[0].layout)
        again = expected.decode(expected.encode(players[0].layout.pack(stored)))
        np.testing.assert_array_equal(received["w"], players[0].layout.views(again)["w"])
        for player, task in zip(players, final, strict=True):
            await player.evaluate(task, accuracy=0.5)


async def stored_model(table: Any, version: int) -> dict[str, np.ndarray]:
    return load((await table.get(f"/v1/models/{version}")).content)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("compression", ["None", "Zstd"])
async def test_encoded_bytes_are_what_is_counted(training: Any, codec: Codec, compression: str) -> None:
    transport = {"codec": codec, "compression": {"type": compression}}
    arrays = {"w": MODEL["w"]}
    async with training(arrays=arrays, transport=transport) as (table, (player,), (task,)):
        before = await table.status()
        await player.model(0)
        await player.delivers(task, {"w": arrays["w"] * np.float32(1.01)})
        after = await table.until_status(lambda status: status["committedRounds"] == 1)
        assert after["codec"] == codec
        received = after["bytesReceived"] - before["bytesReceived"]
        sent = after["bytesSent"] - before["bytesSent"]
        # Random bits hardly pack: with the header of a frame a chunk, they are never worse than without.
        down, up = player.transport.download(player.layout).nbytes, player.encoding(task).nbytes
        if compression == "None":
            assert (sent, received) == (down, up)
        else:
            assert 0.5 * down < sent <= down
            assert 0.2 * up < received <= up
        (record,) = (await table.get("/v1/rounds")).json()
        assert (record["bytesSent"], record["bytesReceived"]) == (sent, received)


@pytest.mark.parametrize(
    ("codec", "spoil", "words"),
    [
        (Codec.BFLOAT16, lambda e, c: e.halves(c).__setitem__(9, 0x7FC0), "tensor 'w' holds NaN or infinity"),
        (Codec.FLOAT16, lambda e, c: e.halves(c).__setitem__(9, 0x7C00), "tensor 'w' holds NaN or infinity"),
        (Codec.INT8, lambda e, c: e.scales(c).__setitem__(2, np.nan), "tensor 'w' holds NaN or infinity"),
        (Codec.TOPK, lambda e, c: e.values(c).__setitem__(1, np.inf), "tensor 'w' holds NaN or infinity"),
        (Codec.TOPK, lambda e, c: e.indices(c).__setitem__(1, 0), "do not rise strictly"),
        (Codec.TOPK, lambda e, c: e.indices(c).__setitem__(-1, ELEMENTS), "do not rise strictly"),
        (Codec.TOPK, lambda e, c: e.indices(c).__setitem__(-1, 2**32 - 1), "do not rise strictly"),
    ],
)
async def test_an_update_that_holds_what_no_learner_encodes_is_refused(
    training: Any, codec: Codec, spoil: Any, words: str
) -> None:
    arrays = {"w": MODEL["w"]}
    protocol = {"synchronous": {"quorumPercent": 50}}
    spec = {"transport": {"codec": codec}, "protocol": protocol}
    async with training("a-0", "a-1", arrays=arrays, **spec) as (table, (honest, other), tasks):
        await honest.model(0)
        await other.model(0)
        content = other.content(tasks[1], {"w": arrays["w"] * np.float32(1.1)})
        (encoded,) = other.encoding(tasks[1]).segments
        spoil(encoded, content)
        receipt = await other.upload(tasks[1], content=content)
        assert receipt.outcome == pb.OUTCOME_REJECTED
        assert words in receipt.message
        # Nothing else is disturbed: the round closes with the other one's update alone.
        result = {"w": arrays["w"] * np.float32(0.5)}
        seen = updates(honest, tasks[0], result)
        received = (await honest.model(0))["w"].copy()
        await honest.delivers(tasks[0], result)
        status = await table.until_status(lambda status: status["committedRounds"] == 1)
        assert words in next(learner for learner in status["learners"] if learner["id"] == "a-1")["message"]
        np.testing.assert_allclose((await stored_model(table, 1))["w"], received + seen["w"], rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ("Float16", "the initial model: the model cannot travel in Float16: tensor 'w' holds NaN or infinity there; "),
        ("Float32", ""),
        ("BFloat16", ""),
        ("Int8", ""),
    ],
)
async def test_a_model_beyond_the_range_of_float16_ends_with_words(served: Any, codec: str, words: str) -> None:
    spec = {"learnerGroups": [{"name": "a", "replicas": 1}], "transport": {"codec": codec}}
    async with served(**spec) as table:
        player = table.player("a-0", {"w": np.array([1, 70_000], np.float32)}, ())
        await player.enter()
        await player.delivers(await player.task("INITIALISE"))
        if not words:
            await player.task("TRAIN")
            assert (await player.model(0))["w"][1] == pytest.approx(70_000, rel=2**-8)
            return
        status = await table.until_status(lambda status: status["state"] == "Failed")
        assert status["reason"] == "AggregationFailed"
        assert words in status["message"]
        assert "choose BFloat16 or Float32" in status["message"]
        assert (await player.task("STOP")).reason == f"Failed: {status['message']}"


async def test_an_update_that_leaves_the_range_ends_with_words(training: Any) -> None:
    arrays = {"w": np.full(5, 60_000, np.float32)}
    async with training(arrays=arrays, transport={"codec": "Float16"}) as (table, (player,), (task,)):
        await player.model(0)
        await player.delivers(task, {"w": arrays["w"] + 9_000})
        status = await table.until_status(lambda status: status["state"] == "Failed")
        assert "round 1: the model cannot travel in Float16" in status["message"]


@pytest.mark.parametrize("codec", [*LOSSY, Codec.FLOAT32])
async def test_updates_from_before_a_restart_are_added_to_the_same_base(controller: Any, codec: Codec) -> None:
    """The base is the stored version as it travels, so a controller that starts again has the very same."""
    process = controller(
        learnerGroups=[{"name": "a", "replicas": 1}], transport={"codec": codec}, termination={"maxRounds": 2}
    )
    table = await process.start()
    player = table.player("a-0", {"w": MODEL["w"]}, ())
    await player.enter()
    await player.delivers(await player.task("INITIALISE"))
    task = await player.task("TRAIN")
    await player.model(0)
    await player.delivers(task, {"w": MODEL["w"] + np.float32(0.1)})
    task = await player.task("TRAIN")
    received = (await player.model(1))["w"].copy()
    seen = updates(player, task, {"w": received + np.float32(0.1) * NOISE[0]})["w"]
    content = player.content(task, {"w": received + np.float32(0.1) * NOISE[0]})
    await process.kill()

    table = await process.start()
    again = table.player("a-0", {"w": MODEL["w"]}, ())
    await again.join()
    await again.open(held=[task.task_id])
    resend = await again.task("RESEND")
    np.testing.assert_array_equal((await again.model(1))["w"], received)
    receipt = await again.upload(resend, content=content)
    assert receipt.outcome == pb.OUTCOME_ACCEPTED
    await table.until_status(lambda status: status["committedRounds"] == 2)
    files = process.folder / "state" / "models"
    await until(lambda: (files / "v000002.safetensors").exists())
    expected = seen if codec.lossless else received.astype(np.float64) + seen
    np.testing.assert_allclose(load_file(files / "v000002.safetensors")["w"], expected, rtol=2e-7, atol=1e-9)


async def test_a_download_in_another_codec_is_refused(training: Any) -> None:
    async with training(transport={"codec": "TopK"}) as (_, (player,), _tasks):
        for codec in (Codec.TOPK, Codec.INT8):
            with pytest.raises(grpc.aio.AioRpcError, match="models go down in Float32"):
                await player.download(0, codec=codec.number)
        await player.model(0)


async def test_uploads_are_unpacked_beside_the_event_loop(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, unpack = [], frames.unpack

    def noted(data: memoryview) -> memoryview:
        threads.append(threading.get_ident())
        return unpack(data)

    monkeypatch.setattr(frames, "unpack", noted)
    arrays = {"w": np.zeros(CHUNK_BYTES // 4 + 100, np.float32)}
    async with training(arrays=arrays, transport={"compression": {"type": "Zstd"}}) as (table, (player,), tasks):
        (task,) = tasks
        await player.delivers(task, arrays)
        await table.until_status(lambda status: status["committedRounds"] == 1)
    assert len(threads) >= 4
    assert threading.get_ident() not in threads

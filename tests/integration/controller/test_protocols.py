"""Protocols through the real service: the models of each version, held against the papers' formulas in float64."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl.wire.limits import CHUNK_BYTES
from metisfl_controller.conductor.served import Served
from metisfl_controller.state.store import Store

Scenes = Callable[..., Any]

MIXING = 0.6


def weights(value: float, steps: int = 0) -> dict[str, np.ndarray]:
    return {"w": np.full((3, 4), value, np.float32), "steps": np.array(steps), "none": np.zeros((0, 2))}


def asynchronous(most: int = 20, **member: Any) -> dict[str, Any]:
    """Parts of a spec: so many versions, of which only the first and the last are evaluated."""
    return {"protocol": {"type": "Asynchronous", "asynchronous": member}, **versions(most)}


def versions(most: int) -> dict[str, Any]:
    return {"termination": {"maxRounds": most}, "evaluation": {"everyRounds": 1000}}


async def receive_the_first(players: list[Any], tasks: list[Any]) -> None:
    """Everybody has version 0, all zeros, and has evaluated it."""
    for player, task in zip(players, tasks, strict=True):
        await player.model(task.model_version)
        await player.evaluate(task, accuracy=0.5)


async def w(player: Any, version: int) -> float:
    """The one value that all of `w` has in a version."""
    values = np.unique((await player.model(version))["w"])
    assert values.size == 1
    return float(values[0])


async def received(table: Any, nbytes: int) -> None:
    """So many bytes of uploads have arrived."""
    pattern = r'metisfl_transfer_bytes_total{direction="received",federation="test"} (\S+)'
    async with asyncio.timeout(30):
        while float(re.findall(pattern, (await table.get("/metrics")).text)[0]) < nbytes:  # noqa: ASYNC110 - REST is polled
            await asyncio.sleep(0.02)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Versions after the first are written once this is set, as on a slow disk."""
    go_on, write = threading.Event(), Store.write_model

    def wait_and_write(store: Store, *arguments: Any) -> Any:
        assert go_on.wait(30)
        return write(store, *arguments)

    monkeypatch.setattr(Store, "write_model", wait_and_write)
    yield go_on
    go_on.set()


async def test_fed_async_mixes_each_model_into_the_newest_version(training: Scenes) -> None:
    spec = asynchronous(mixing=str(MIXING), staleness={"type": "Polynomial", "exponent": "0.5"})
    async with training("a-0", "a-1", **spec) as (table, (fast, slow), (task, first)):
        await receive_the_first([fast, slow], [task, first])
        expected = 0.0
        for version, value in enumerate((1.0, 4.0, -2.0), 1):
            await fast.delivers(task, weights(value, steps=version), examples=1000)
            task = await fast.task("TRAIN")
            assert (task.model_version, task.deadline_seconds) == (version, 0)
            expected = (1 - MIXING) * expected + MIXING * value
            assert await w(fast, version) == pytest.approx(expected, rel=1e-6)
        # Trained from version 0 and folded into version 3.
        alpha = MIXING * (1 + 3) ** -0.5
        await slow.delivers(first, weights(10.0, steps=77), examples=1)
        assert (await slow.task("TRAIN")).model_version == 4
        assert await w(slow, 4) == pytest.approx((1 - alpha) * expected + alpha * 10.0, rel=1e-6)
        # What is not trained is taken over as it is.
        assert (await slow.model(4))["steps"] == 77
        rounds = (await table.get("/v1/rounds")).json()
        assert [(r["contributors"], r["updates"], r["staleness"]) for r in rounds] == [
            (["a-0"], 1, 0.0),
            (["a-0"], 1, 0.0),
            (["a-0"], 1, 0.0),
            (["a-1"], 1, 3.0),
        ]
        status = await table.status()
        assert (status["protocol"], status["currentRound"], status["round"]["participants"]) == ("Asynchronous", 5, 2)


@pytest.mark.parametrize("codec", ["Float32", "BFloat16"])
async def test_fed_buff_adds_what_training_changed(training: Scenes, codec: str) -> None:
    spec = asynchronous(bufferSize=2, mixing=str(MIXING)) | {"transport": {"codec": codec}}
    async with training("a-0", "a-1", **spec) as (_, (fast, slow), (task, first)):
        await receive_the_first([fast, slow], [task, first])
        # Two parts of one learner, both from version 0.
        await fast.delivers(task, weights(1.0), examples=30)
        again = await fast.task("TRAIN")
        assert again.model_version == 0
        assert (again.task_id, again.training.seed) != (task.task_id, task.training.seed)
        await fast.delivers(again, weights(2.0), examples=10)
        task = await fast.task("TRAIN")
        version_1 = MIXING * (30 * 1.0 + 10 * 2.0) / 40
        tolerance = {"Float32": 1e-6, "BFloat16": 2**-7}[codec]
        assert await w(fast, 1) == pytest.approx(version_1, rel=tolerance)
        # One from version 1 and one that still is from version 0: differences to different models.
        await fast.delivers(task, weights(3.0), examples=10)
        await slow.delivers(first, weights(-4.0), examples=20)
        change = (10 * (3.0 - version_1) + 20 * 2**-0.5 * -4.0) / 30
        assert (await slow.task("TRAIN")).model_version == 2
        assert await w(slow, 2) == pytest.approx(version_1 + MIXING * change, rel=2 * tolerance)


async def test_what_is_too_stale_is_late_and_its_learner_begins_anew(training: Scenes) -> None:
    async with training("a-0", "a-1", **asynchronous(maxStaleness=1)) as (_, (fast, slow), (task, stale)):
        await receive_the_first([fast, slow], [task, stale])
        for _ in range(2):
            await fast.delivers(task, weights(1.0))
            task = await fast.task("TRAIN")
        assert (await slow.task("DISCARD")).task_id == stale.task_id
        assert (await slow.task("TRAIN")).model_version == 2
        receipt = await slow.upload(stale, weights(9.0))
        assert receipt.outcome == pb.OUTCOME_LATE
        assert receipt.message == "it is trained from version 0 and the newest is 2: more than maxStaleness 1"


async def test_a_late_update_counts_in_the_next_round_with_its_full_weight(training: Scenes) -> None:
    spec = {"protocol": {"synchronous": {"overSelect": 1, "lateUpdates": "NextRound"}}, **versions(4)}
    async with training("a-0", "a-1", **spec) as (table, (fast, slow), (task, first)):
        await receive_the_first([fast, slow], [task, first])
        await fast.delivers(task, weights(1.0), examples=10)
        task = await fast.task("TRAIN")
        assert await w(fast, 1) == 1.0
        # Its round has closed; it counts as its part of the next, in which the other has a newer version.
        await slow.delivers(first, weights(5.0), examples=30)
        assert (await slow.task("TRAIN")).model_version == 2
        assert await w(slow, 2) == 5.0
        # And now the other is late.
        await fast.delivers(task, weights(7.0))
        assert (await fast.task("TRAIN")).model_version == 3
        rounds = (await table.get("/v1/rounds")).json()
        assert [(r["contributors"], r["lost"], r["staleness"]) for r in rounds] == [
            (["a-0"], ["a-1"], 0.0),
            (["a-1"], ["a-0"], 1.0),
            (["a-0"], ["a-1"], 1.0),
        ]


async def test_an_upload_under_way_while_its_round_closes_counts_in_the_next(
    training: Scenes, commits: threading.Event
) -> None:
    """Its chunks and its end come while the round that it has missed is still being written."""
    spec = {"protocol": {"synchronous": {"overSelect": 1, "lateUpdates": "NextRound"}}, **versions(4)}
    arrays = {"w": np.zeros(3 * CHUNK_BYTES // 4, np.float32)}
    async with training("a-0", "a-1", arrays=arrays, **spec) as (table, (fast, slow), (task, first)):
        await receive_the_first([fast, slow], [task, first])
        content = slow.content(first, {"w": np.full_like(arrays["w"], 5)})
        call = slow.upload_call()
        await call.send(slow.header(first))
        assert (await call.reply()).HasField("grant")
        await call.content(content, stop=CHUNK_BYTES)
        await fast.delivers(task)
        await call.content(content, start=CHUNK_BYTES)
        await call.finish(frames.section_checksum(content.data))
        verdict = asyncio.create_task(call.reply())
        await received(table, 3 * content.size)  # the initial model and both updates
        commits.set()
        assert (await verdict).receipt.outcome == pb.OUTCOME_ACCEPTED
        assert (await slow.task("TRAIN")).model_version == 2
        assert await w(slow, 2) == 5.0


async def test_versions_made_one_after_the_other_of_what_has_waited_do_not_pile_up_in_memory(
    training: Scenes, commits: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, add = [], Served.add

    def count(served: Served, model: Any) -> None:
        add(served, model)
        in_memory.append(len(served._in_memory))

    monkeypatch.setattr(Served, "add", count)
    names = [f"a-{i}" for i in range(6)]
    async with training(*names, **asynchronous(maxStaleness=6)) as (_, players, tasks):
        await receive_the_first(players, tasks)
        for player, task in zip(players, tasks, strict=True):
            await player.delivers(task, weights(1.0))
        commits.set()
        assert (await players[0].task("TRAIN")).model_version == len(names)
    assert max(in_memory) <= 3  # two, and the newest


async def test_what_becomes_too_stale_while_it_waits_is_let_go_of(training: Scenes, commits: threading.Event) -> None:
    names = ["a-0", "a-1", "a-2"]
    async with training(*names, **asynchronous(maxStaleness=1)) as (table, players, tasks):
        await receive_the_first(players, tasks)
        for player, task in zip(players, tasks, strict=True):
            await player.delivers(task, weights(1.0))
        commits.set()
        last = await players[2].task("TRAIN")
        assert (last.model_version, list(last.uncommitted)) == (2, [])
        await players[2].delivers(last, weights(2.0))
        assert (await players[2].task("TRAIN")).model_version == 3
        assert [entry["contributors"] for entry in (await table.get("/v1/rounds")).json()] == [[name] for name in names]


async def test_paced_learners_are_told_how_many_batches(training: Scenes) -> None:
    protocol = {"type": "SemiSynchronous", "semiSynchronous": {"lambda": "2"}}
    async with training("a-0", "a-1", protocol=protocol, training={"batchSize": 5}) as (_, players, tasks):
        assert (tasks[0].training.epochs, tasks[0].training.steps) == (1, 0)
        for player, task, seconds in zip(players, tasks, (0.4, 1.6), strict=True):
            report = pb.TrainingReport(examples=20, batches=4, seconds=seconds)
            await player.delivers(task, weights(1.0), report=report)
        # Two epochs of the slow one: 2 · 4 · 0.4 s.
        assert (await players[0].task("TRAIN")).training.steps == 32
        assert (await players[1].task("TRAIN")).training.steps == 8


async def begin_again(table: Any, *held: tuple[str, dict[str, Any]]) -> list[Any]:
    """Learners that have found their way back to a restarted controller, with what they bring."""
    players = []
    for name, brought in held:
        players.append(table.player(name))
        await players[-1].enter(**brought)
    return players


async def test_an_older_version_is_served_while_somebody_trains_from_it(controller: Scenes) -> None:
    """Also when it is not in memory any more, and after a restart; a version that nobody uses goes."""
    process = controller(**asynchronous())
    table = await process.start()
    fast, slow = await begin_again(table, ("a-0", {}), ("a-1", {}))
    await fast.delivers(await fast.task("INITIALISE"), weights(0))
    first = await slow.task("TRAIN")
    await receive_the_first([slow], [first])
    whole = await slow.download(0)
    for _ in range(6):
        task = await fast.task("TRAIN")
        await fast.evaluate(task, accuracy=0.5)
        await fast.delivers(task, weights(2.0))
    newest = await fast.task("TRAIN")
    assert newest.model_version == 6
    np.testing.assert_array_equal(await slow.download(0), whole)
    assert {entry["version"] for entry in (await table.get("/v1/models")).json()} == {0, 4, 5, 6}
    await process.kill()
    table = await process.start()
    slow, fast = await begin_again(table, ("a-1", {"running": first.task_id}), ("a-0", {"running": newest.task_id}))
    np.testing.assert_array_equal(await slow.download(0), whole)
    await slow.delivers(first, weights(3.0))
    await slow.task("TRAIN")
    await fast.delivers(newest, weights(3.0))
    await fast.task("TRAIN")
    assert {entry["version"] for entry in (await table.get("/v1/models")).json()} == {6, 7, 8}


async def test_killed_with_a_half_full_buffer(controller: Scenes) -> None:
    """What was in it is asked for again; what is in a version is not."""
    process = controller(**asynchronous(bufferSize=2, mixing="1"))
    table = await process.start()
    one, two = await begin_again(table, ("a-0", {}), ("a-1", {}))
    await one.delivers(await one.task("INITIALISE"), weights(0))
    task, other = [await player.task("TRAIN") for player in (one, two)]
    await receive_the_first([one, two], [task, other])
    await one.delivers(task, weights(2.0))
    second = await one.task("TRAIN")
    assert list(second.uncommitted) == [task.task_id]
    await two.delivers(other, weights(4.0))
    assert (await two.task("TRAIN")).model_version == 1
    await one.delivers(second, weights(6.0))
    await process.kill()

    table = await process.start()
    one, two = await begin_again(table, ("a-0", {"held": [task.task_id, second.task_id]}), ("a-1", {}))
    asked = await one.task("RESEND")
    assert asked.task_id == second.task_id
    again = await one.upload(task, content=one.encoding(task).encode(one.layout.pack(weights(2.0))))
    assert again.outcome == pb.OUTCOME_DUPLICATE
    await one.model(0)
    await one.delivers(asked, weights(6.0))
    assert (await one.task("TRAIN")).model_version == 1
    assert (await table.status())["round"]["contributions"] == 1

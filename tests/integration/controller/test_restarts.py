"""The controller is killed and comes back: no round is lost, and nothing counts twice."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl_controller.state.records import StateError

Controllers = Callable[..., Any]


def weights(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((3, 4), value, np.float32), "steps": np.array(0), "none": np.zeros((0, 2))}


async def test_killed_in_mid_round(controller: Controllers) -> None:
    process = controller(termination={"maxRounds": 3})
    table = await process.start()
    players = [table.player(name) for name in ("a-0", "a-1")]
    for player in players:
        await player.enter()
    await players[0].delivers(await players[0].task("INITIALISE"), weights(0))
    for value, player in enumerate(players, 1):
        await player.delivers(await player.task("TRAIN"), weights(value), examples=10 * value)
    # Round 2: one result was accepted, the other is half uploaded; then the controller dies.
    delivered, unfinished = [await player.task("TRAIN") for player in players]
    assert (delivered.round, delivered.model_version) == (2, 1)
    await players[0].delivers(delivered, weights(5))
    call = players[1].upload_call()
    await call.send(players[1].header(unfinished))
    await call.reply()
    before = await table.status()
    await process.kill()
    with pytest.raises(grpc.aio.AioRpcError):
        await players[0].receive()

    table = await process.start()
    status = await table.status()
    assert (status["uid"], status["incarnation"]) == (before["uid"], 2)
    assert (status["committedRounds"], status["globalModel"]) == (1, before["globalModel"])
    assert status["startTime"] == before["startTime"]
    players = [table.player(name) for name in ("a-0", "a-1")]
    # Old leases are unknown; who joins again is asked for what it holds, and for nothing else.
    await players[0].open()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await players[0].receive()
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    stale = delivered.task_id.replace("/train/1/", "/train/0/")
    await players[0].enter(held=[stale, delivered.task_id])
    await players[1].enter(running=unfinished.task_id)
    resend = await players[0].task("RESEND")
    assert (resend.task_id, resend.round) == (delivered.task_id, 2)
    assert (await players[0].task("DISCARD")).task_id == stale
    np.testing.assert_array_equal((await players[0].model(1))["w"], np.float32((10 * 1 + 20 * 2) / 30))
    await players[0].delivers(resend, weights(5), examples=30)
    assert (await players[0].upload(resend, weights(5))).outcome == pb.OUTCOME_DUPLICATE
    await players[1].delivers(unfinished, weights(7), examples=10)
    for player in players:
        task = await player.task("TRAIN")
        assert (task.round, task.model_version) == (3, 2)
        # No more of round 2, and who has not heard that its result counts hears it with the task.
        counted = resend if player is players[0] else unfinished
        assert task.counted == counted.task_id
        assert (await player.upload(counted)).outcome == pb.OUTCOME_DUPLICATE
        np.testing.assert_array_equal((await player.model(2))["w"], np.float32((30 * 5 + 10 * 7) / 40))
    rounds = (await table.get("/v1/rounds")).json()
    assert [(r["number"], r["version"], r["contributors"]) for r in rounds] == [
        (1, 1, ["a-0", "a-1"]),
        (2, 2, ["a-0", "a-1"]),
    ]
    await process.kill()
    table = await process.start()
    players = [table.player(name) for name in ("a-0", "a-1")]
    await players[0].enter(held=[resend.task_id])
    await players[1].enter()
    assert [(await players[0].task(kind)).counted for kind in ("TRAIN", "DISCARD")] == [resend.task_id] * 2
    assert await process.stop() == 0


async def test_killed_before_the_initial_model(controller: Controllers) -> None:
    process = controller(learnerGroups=[{"name": "a", "replicas": 1}])
    table = await process.start()
    player = table.player("a-0")
    await player.enter()
    task = await player.task("INITIALISE")
    await process.kill()
    table = await process.start()
    player = table.player("a-0")
    await player.enter(running=task.task_id)
    again = await player.task("INITIALISE")
    assert again.task_id != task.task_id
    assert (await player.upload(task)).outcome == pb.OUTCOME_LATE
    await player.delivers(again)
    assert (await player.task("TRAIN")).model_version == 0


async def test_killed_while_the_last_version_is_evaluated(controller: Controllers) -> None:
    process = controller(termination={"maxRounds": 1})
    table = await process.start()
    players = [table.player(name) for name in ("a-0", "a-1")]
    for player in players:
        await player.enter()
    await players[0].delivers(await players[0].task("INITIALISE"))
    for player in players:
        await player.delivers(await player.task("TRAIN"), weights(1))
    for player in players:
        await player.task("EVALUATE")
    await process.kill()
    table = await process.start()
    players = [table.player(name) for name in ("a-0", "a-1")]
    for value, player in enumerate(players):
        await player.enter()
        await player.evaluate(await player.task("EVALUATE"), accuracy=value)
    for player in players:
        await player.task("STOP")
    assert (await table.status())["metrics"] == [{"name": "accuracy", "value": 0.5, "version": 1, "examples": 10}]


async def test_killed_between_the_metrics_that_meet_the_target_and_the_outcome(
    served: Callable[..., Any], tmp_path: Path
) -> None:
    spec: dict[str, Any] = {
        "learnerGroups": [{"name": "a", "replicas": 1}],
        "termination": {"maxRounds": 3, "targetMetric": {"name": "accuracy", "atLeast": "0.9"}},
    }
    async with served(**spec) as table:
        player = table.player("a-0")
        await player.enter()
        await player.delivers(await player.task("INITIALISE"))
        await player.evaluate(await player.task("TRAIN"), accuracy=0.9)
        await player.task("DISCARD")
        await player.task("STOP")
    # Just what such a kill leaves: the metrics' row, and nothing of the outcome.
    with closing(sqlite3.connect(tmp_path / "state" / "history.sqlite")) as database, database:
        database.execute(
            "UPDATE federation SET state = '', reason = '', message = '', completed_at = NULL, published_version = NULL"
        )
        assert database.execute("SELECT version, name, value FROM evaluations").fetchall() == [(0, "accuracy", 0.9)]
    async with served(**spec) as table:
        player = table.player("a-0")
        await player.enter()
        task = await player.task("TRAIN")
        assert task.evaluate
        await player.evaluate(task, accuracy=0.9)
        await player.task("DISCARD")
        await player.task("STOP")
        status = await table.status()
        assert (status["reason"], status["globalModel"]["version"]) == ("TargetMetricReached", 0)


async def test_what_was_trained_after_a_backup_does_not_count_when_it_is_restored(
    served: Callable[..., Any], tmp_path: Path
) -> None:
    """Both controllers after the backup are the second to start on its state."""
    spec: dict[str, Any] = {"learnerGroups": [{"name": "a", "replicas": 1}], "termination": {"maxRounds": 9}}
    state, backup = tmp_path / "state", tmp_path / "backup"
    async with served(**spec) as table:
        await (player := table.player("a-0")).enter()
        await player.delivers(await player.task("INITIALISE"), weights(0))
        await player.task("TRAIN")
    shutil.copytree(state, backup)
    async with served(**spec) as table:
        await (player := table.player("a-0")).enter()
        await player.delivers(await player.task("TRAIN"), weights(1))
        lost = await player.task("TRAIN")
    shutil.rmtree(state)
    shutil.copytree(backup, state)
    async with served(**spec) as table:
        await (player := table.player("a-0")).enter()
        await player.delivers(await player.task("TRAIN"), weights(2))
        again = await player.task("TRAIN")
        assert (again.model_version, (await table.status())["incarnation"]) == (lost.model_version, 2)
        assert (await player.upload(lost, weights(3))).outcome == pb.OUTCOME_LATE
        await player.delivers(again, weights(4))


async def test_told_to_stop_in_mid_upload(controller: Controllers) -> None:
    process = controller(learnerGroups=[{"name": "a", "replicas": 1}])
    table = await process.start()
    player = table.player("a-0", {"w": np.zeros(1_000_000, np.float32)}, frozen=())
    await player.enter()
    call = player.upload_call()
    await call.send(player.header(await player.task("INITIALISE")))
    await call.reply()
    await call.content(player.layout.allocate(), stop=2 << 20)
    assert await process.stop() == 0
    assert "Traceback" not in process.log
    assert await call.code() is not grpc.StatusCode.OK


async def test_a_damaged_checkpoint_stops_the_controller_with_words(served: Callable[..., Any], tmp_path: Path) -> None:
    spec = {"learnerGroups": [{"name": "a", "replicas": 1}]}
    async with served(**spec) as table:
        player = table.player("a-0")
        await player.enter()
        await player.delivers(await player.task("INITIALISE"))
        await player.task("TRAIN")
    model = tmp_path / "state" / "models" / "v000000.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(StateError, match=r"model version 0 cannot be read: v000000.safetensors is damaged"):
        await served(**spec).__aenter__()

"""A federation's file is edited under a running controller."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest


def edit(folder: Path, **spec: Any) -> None:
    """As a kubelet does it: never seen half-written."""
    path, unfinished = folder / "federation.json", folder / "unfinished"
    document = json.loads(path.read_text())
    document["spec"].update(spec)
    unfinished.write_text(json.dumps(document))
    unfinished.replace(path)


async def test_rounds_parameters_and_learners_change_under_way(training: Callable[..., Any], tmp_path: Path) -> None:
    learner = {"entrypoint": "any:Class", "partitions": 2}
    async with training("a-0", learner=learner, termination={"maxRounds": 5}) as (table, (player,), (task,)):
        before = (await table.status())["configuration"]
        edit(
            tmp_path,
            learner={**learner, "parameters": {"alpha": "2"}},
            learnerGroups=[{"name": "a", "replicas": 2}],
            training={"epochs": 3},
            selection={"minLearners": 2},
            termination={"maxRounds": 2},
        )
        status = await table.until_status(lambda s: s["configuration"] != before)
        assert (status["maxRounds"], status["desiredLearners"]) == (5, 2)

        # Newcomers have a place at once; the round goes on as it began.
        newcomer = table.player("a-1")
        assert dict((await newcomer.join()).parameters) == {"alpha": "2"}
        await newcomer.open()
        await player.delivers(task)
        status = await table.until_status(lambda s: s["maxRounds"] == 2)
        assert status["desiredLearners"] == 2

        # The one whose parameters have changed is asked to join again, and then both train as the new spec says.
        assert dict((await player.join()).parameters) == {"alpha": "2"}
        await player.open()
        for each in (player, newcomer):
            task = await each.task("TRAIN")
            assert task.training.epochs == 3
            await each.delivers(task)
        await player.task("EVALUATE")


async def test_learners_that_cannot_do_what_an_edit_asks_for_are_refused(
    training: Callable[..., Any], tmp_path: Path
) -> None:
    async with training("a-0", "a-1", termination={"maxRounds": 5}) as (table, players, tasks):
        before = (await table.status())["configuration"]
        edit(tmp_path, training={"proximalMu": "0.5"})
        await table.until_status(lambda s: s["configuration"] != before)
        for player, task in zip(players, tasks, strict=True):
            await player.delivers(task)
        able, unable = players
        with pytest.raises(grpc.aio.AioRpcError, match="what learners must be able to do has changed"):
            await unable.receive()
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"training.proximalMu is 0.5, and this learner's class does not"
        ):
            await unable.join(capabilities=[])
        await able.enter()
        assert (await able.task("TRAIN")).training.proximal_mu == 0.5

"""keepUpdates in the whole service: what is listed, and that a disk that takes nothing holds up no round."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.integration.controller.conftest import MODEL, until


async def play(table: Any, players: list[Any], tasks: list[Any], rounds: int) -> None:
    for number in range(1, rounds + 1):
        for player, task in zip(players, tasks, strict=True):
            await player.delivers(task, {**MODEL, "w": MODEL["w"] + np.float32(number + player.ordinal)})
        await table.until_status(lambda status, done=number: status["committedRounds"] == done)
        tasks = [await player.task("TRAIN") for player in players]


# FedStride has room for one update in memory: those that wait for the disk have to make room for others.
@pytest.mark.parametrize("rule", ["FedStride", "Median"])
async def test_the_last_updates_are_kept_and_listed(training: Any, tmp_path: Path, rule: str) -> None:
    spec = {"aggregation": {"rule": rule, "keepUpdates": 2}, "termination": {"maxRounds": 9}}
    async with training("a-0", "a-1", **spec) as (table, players, tasks):
        await play(table, players, tasks, 3)

        async def listed() -> list[dict[str, Any]]:
            return list((await table.get("/v1/updates")).json())

        async def complete() -> bool:
            return [(u["learner"], u["baseVersion"]) for u in await listed()] == [
                (learner, version) for learner in ("a-0", "a-1") for version in (1, 2)
            ]

        while not await complete():
            pass
        for update in await listed():
            path = tmp_path / "state" / "updates" / update["file"]
            assert path.stat().st_size == update["bytes"]
            expected = MODEL["w"] + np.float32(update["baseVersion"] + 1 + int(update["learner"][-1]))
            np.testing.assert_array_equal(load_file(path)["w"], expected)


async def test_a_disk_that_takes_nothing_is_a_warning(
    training: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "updates").write_text("not a folder")
    caplog.set_level(logging.WARNING)
    async with training("a-0", "a-1", aggregation={"keepUpdates": 1}, termination={"maxRounds": 9}) as of:
        await play(*of, 2)
        assert (await of[0].get("/v1/updates")).json() == []
        await until(lambda: sum("an update is not kept" in record.message for record in caplog.records) >= 4)


async def test_without_keep_updates_nothing_is_kept(training: Any, tmp_path: Path) -> None:
    async with training("a-0") as (table, players, tasks):
        await play(table, players, tasks, 1)
        assert (await table.get("/v1/updates")).json() == []
        assert not (tmp_path / "state" / "updates").exists()

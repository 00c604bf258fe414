"""A federation is exported while it trains, and another one goes on from the archive."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metisfl.archive import ArchiveError, Plan, unpack
from metisfl.archive.reading import UNFINISHED
from metisfl_controller.state.export import export
from metisfl_controller.state.records import StateError
from metisfl_controller.state.store import Store
from tests.integration.controller.test_restarts import weights
from tests.integration.controller.test_rules import go_on

UID = "1f3c9a02-0000-4000-8000-000000000001"


async def train(table: Any, rounds: int) -> tuple[list[Any], list[Any]]:
    """Two players and their tasks after so many rounds, in which the model is the round's number."""
    players = [table.player(name) for name in ("a-0", "a-1")]
    for player in players:
        await player.enter()
    await players[0].delivers(await players[0].task("INITIALISE"), weights(0))
    for number in range(1, rounds + 1):
        for player in players:
            await player.delivers(await player.task("TRAIN"), weights(number))
    return players, [await player.task("TRAIN") for player in players]


async def test_another_federation_goes_on_from_an_archive(
    served: Callable[..., Any], settings_of: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    spec = {
        "termination": {"maxRounds": 9},
        "aggregation": {
            "serverOptimizer": {"type": "Momentum", "momentum": "0", "learningRate": "1"},
            "keepUpdates": 1,
        },
        "controller": {"keepVersions": 2},
    }
    async with served(**spec) as table:
        players, tasks = await train(table, rounds=3)
        # One of two has delivered: of a round under way nothing is in the archive.
        await players[0].delivers(tasks[0], weights(50))
        answer = await table.get("/v1/archive")
        before = await table.status()
        rounds = (await table.get("/v1/rounds")).json()
        model = (await table.get("/v1/models/3")).content
        await players[1].delivers(tasks[1], weights(60))
        await players[0].task("TRAIN")
        assert (await table.status())["committedRounds"] == 4, "training goes on"
    assert answer.headers["Content-Length"] == str(len(answer.content))

    place = tmp_path / "restored"
    manifest = unpack(io.BytesIO(answer.content), place)
    assert (manifest.federation, manifest.uid, manifest.version) == ("test", before["uid"], 3)
    assert manifest.plan.model_dump() == {"count": 2, "offsets": {"a": 0}, "sizes": {"a": 2}}
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == [
        "history.sqlite",
        "models/v000002.safetensors",
        "models/v000003-rule.safetensors",
        "models/v000003.safetensors",
    ]
    assert hashlib.sha256(model).hexdigest() == before["globalModel"]["sha256"]

    other = {"METISFL_STATE_DIR": str(place), "METISFL_FEDERATION_UID": UID, "METISFL_ADOPT_STATE": "true"}
    async with served(settings=other, **spec) as table:
        status = await table.status()
        assert (status["uid"], status["committedRounds"]) == (UID, 3)
        assert status["globalModel"] == before["globalModel"]
        assert (await table.get("/v1/models/latest")).content == model
        assert (await table.get("/v1/rounds")).json() == rounds
        again = [table.player(name) for name in ("a-0", "a-1")]
        for player in again:
            await player.enter()
        for player in again:
            task = await player.task("TRAIN")
            assert (task.round, task.model_version) == (4, 3)
            np.testing.assert_array_equal((await player.model(3))["w"], weights(3)["w"])
            await player.delivers(task, weights(7))
        for player in again:
            assert (await player.task("TRAIN")).round == 5
        assert (await table.status())["committedRounds"] == 4


@pytest.mark.parametrize(
    "aggregation",
    [
        {"serverOptimizer": {"type": "Adam"}},
        {"rule": "FedNova", "serverOptimizer": {"type": "Momentum", "learningRate": "0.5"}},
    ],
    ids=["Adam", "FedNova"],
)
async def test_a_server_optimizer_goes_on_where_it_was(
    served: Callable[..., Any], tmp_path: Path, aggregation: dict[str, Any]
) -> None:
    """Bit for bit as in a run that nobody moved."""
    expected = await go_on(served, tmp_path / "whole", 0, 4, **aggregation)
    await go_on(served, tmp_path / "first", 0, 2, **aggregation)
    assert "models/v000002-rule.safetensors" in moved(tmp_path / "first", tmp_path / "second")
    found = await go_on(served, tmp_path / "second", 2, 2, **aggregation)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


async def test_learners_models_stay_behind(served: Callable[..., Any], tmp_path: Path) -> None:
    """FedRec's state names them, and begins anew without."""
    await go_on(served, tmp_path / "first", 0, 2, rule="FedRec")
    assert moved(tmp_path / "first", tmp_path / "second") == [
        "history.sqlite",
        *(f"models/v00000{number}.safetensors" for number in range(3)),
    ]
    await go_on(served, tmp_path / "second", 2, 1, rule="FedRec")


def moved(source: Path, target: Path) -> list[str]:
    """The files that an archive of one state directory makes of another."""
    with closing(Store(source, (source / "uid").read_text(), "test")) as store:
        made = export(store, "test", "any", Plan(count=3, offsets={"a": 0}, sizes={"a": 3}))
        unpack(io.BytesIO(b"".join(made.content())), target)
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())


async def test_there_is_nothing_to_export_before_the_first_version(served: Callable[..., Any]) -> None:
    async with served() as table:
        answer = await table.get("/v1/archive")
    assert answer.status_code == 409
    assert "no model version has been committed yet" in answer.json()["detail"]


async def test_keys_and_certificates_stay_behind(training: Callable[..., Any], tmp_path: Path) -> None:
    """The ledger is in the same file as the history; not even its deleted pages are in the archive."""
    async with training("a-0") as (table, _, _):
        secret = "a certificate's serial"
        with closing(sqlite3.connect(tmp_path / "state" / "history.sqlite", timeout=20)) as database, database:
            database.execute("INSERT INTO certificates VALUES (?, 'a', 0, '', 'key', 1, 1e12, '', NULL)", (secret,))
            database.execute("INSERT INTO audit VALUES (NULL, 1, 'Enrolled', 'a-0', 'ipv4:10.0.0.1', '')")
        content = (await table.get("/v1/archive")).content
    assert secret.encode() not in content
    unpack(io.BytesIO(content), tmp_path / "restored")
    with closing(sqlite3.connect(tmp_path / "restored" / "history.sqlite")) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "certificates" not in tables
        assert database.execute("SELECT count(*) FROM audit WHERE peer = 'ipv4:10.0.0.1'").fetchone() == (1,)


async def test_a_damaged_model_is_never_restored(training: Callable[..., Any], tmp_path: Path) -> None:
    """The controller sends the bytes that it has; the checksum is that of the commit."""
    async with training("a-0") as (table, _, _):
        (file,) = (tmp_path / "state" / "models").iterdir()
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        archive = (await table.get("/v1/archive")).content
    with pytest.raises(ArchiveError, match=r"v000000\.safetensors is damaged"):
        unpack(io.BytesIO(archive), tmp_path / "restored")


def test_a_half_unpacked_archive_is_no_state(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED).mkdir()
    with pytest.raises(StateError, match="was not unpacked to its end"):
        Store(tmp_path, "uid", "test")
    assert not (tmp_path / "history.sqlite").exists()

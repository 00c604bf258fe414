"""Models and their lineage in an object store, from a real controller."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.controller.object_store import ObjectStore, serving


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with serving() as there:
        for name, value in there.environment().items():
            monkeypatch.setenv(name, value)
        yield there


async def test_every_version_and_how_it_came_to_be_lie_in_the_store(
    training: Callable[..., Any], store: ObjectStore
) -> None:
    output = {"url": "s3://bucket/models/", "versions": "All"}
    async with training("a-0", output=output, termination={"maxRounds": 2}) as (table, (player,), (task,)):
        status = await table.until_status(lambda s: s["output"]["delivered"] == 0)
        folder = f"test-{status['uid'][:8]}"
        assert status["output"]["url"] == f"s3://bucket/models/{folder}"
        store.broken = 4
        for following in ("TRAIN", "EVALUATE"):
            await player.evaluate(task, 10, accuracy=0.5)
            await player.delivers(task, examples=20)
            task = await player.task(following)
        await player.evaluate(task, 10, accuracy=1.0)
        await player.task("STOP")
        status = await table.until_status(lambda s: s["state"] == "Complete")
        assert (status["output"]["delivered"], status["output"]["pending"], status["output"]["message"]) == (2, 0, "")
        latest = (await table.get("/v1/models/latest")).content
        metrics = (await table.get("/metrics")).text
    assert 'metisfl_output_uploads_total{federation="test",outcome="delivered"} 3.0' in metrics
    there = {key.removeprefix(f"bucket/models/{folder}/"): value for key, value in store.objects.items()}
    assert sorted(there) == ["lineage.json", *(f"v00000{n}.safetensors" for n in range(3))]
    assert there["v000002.safetensors"] == latest
    lineage = json.loads(there["lineage.json"])
    assert (lineage["uid"], lineage["published"], lineage["outcome"]["reason"]) == (
        status["uid"],
        2,
        "MaxRoundsReached",
    )
    for version in lineage["versions"]:
        assert hashlib.sha256(there[version["file"]]).hexdigest() == version["sha256"]
    assert [version["metrics"]["accuracy"]["value"] for version in lineage["versions"]] == [0.5, 0.5, 1.0]
    assert [sorted(made["contributors"]) for made in lineage["rounds"]] == [["a-0"], ["a-0"]]
    assert lineage["rounds"][0]["contributors"]["a-0"]["examples"] == 20


async def test_only_the_published_version_goes_there_by_default(
    training: Callable[..., Any], store: ObjectStore
) -> None:
    output = {"url": "s3://bucket/models"}
    async with training("a-0", output=output, termination={"maxRounds": 1}) as (table, (player,), (task,)):
        await player.evaluate(task, 10, accuracy=0.5)
        await player.delivers(task)
        await player.evaluate(await player.task("EVALUATE"), 10, accuracy=1.0)
        await table.until_status(lambda s: s["state"] == "Complete")
    assert sorted(key.rpartition("/")[2] for key in store.objects) == ["lineage.json", "v000001.safetensors"]


async def test_a_store_that_refuses_is_told_at_the_start_and_stops_nothing(
    training: Callable[..., Any], store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    async with training("a-0", output={"url": "s3://bucket/models"}) as (table, (player,), (task,)):
        status = await table.until_status(lambda s: s["output"]["message"])
        assert "SignatureDoesNotMatch" in status["output"]["message"]
        await player.evaluate(task, 10, accuracy=0.5)
        await player.delivers(task)
        await player.task("TRAIN")
        assert (await table.status())["committedRounds"] == 1
    assert store.objects == {}

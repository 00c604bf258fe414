"""Models go to S3 and Azure as servers that others wrote understand them, and their makers' clients find them there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metisfl_controller.output.destination import DestinationError, ObjectStore
from tests.integration.controller.independent_stores import (
    INSTALL_SECONDS,
    IndependentStore,
    azurite,
    azurite_server,
    moto_server,
    python_with_clients,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * INSTALL_SECONDS)]


@pytest.fixture(scope="module", params=["s3", "azure"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[IndependentStore]:
    cache, log = pytestconfig.cache.mkdir("independent-stores"), tmp_path_factory.mktemp("store") / "log"
    python = python_with_clients(cache)
    server = moto_server(python, log) if request.param == "s3" else azurite_server(azurite(cache), python, log)
    with server as store:
        yield store


@pytest.fixture
def store(running: IndependentStore, monkeypatch: pytest.MonkeyPatch) -> IndependentStore:
    """As the Secret of `spec.output.secretRef` would tell it."""
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


async def test_every_version_and_how_it_came_to_be_are_found(
    training: Callable[..., Any], store: IndependentStore, tmp_path: Path
) -> None:
    output = {"url": store.url, "versions": "All"}
    async with training("a-0", output=output, termination={"maxRounds": 2}) as (table, (player,), (task,)):
        for following in ("TRAIN", "EVALUATE"):
            await player.evaluate(task, 10, accuracy=0.5)
            await player.delivers(task, examples=20)
            task = await player.task(following)
        await player.evaluate(task, 10, accuracy=1.0)
        status = await table.until_status(lambda s: s["state"] == "Complete")
        latest = (await table.get("/v1/models/latest")).content
    assert (status["output"]["delivered"], status["output"]["message"]) == (2, "")
    folder = f"models/test-{status['uid'][:8]}/"
    objects = store.objects(tmp_path / "fetched")
    there = {name.removeprefix(folder): content for name, content in objects.items() if name.startswith(folder)}
    assert sorted(there) == ["lineage.json", *(f"v00000{n}.safetensors" for n in range(3))]
    assert there["v000002.safetensors"] == latest
    lineage = json.loads(there["lineage.json"])
    assert lineage["published"] == 2
    for version in lineage["versions"]:
        assert hashlib.sha256(there[version["file"]]).hexdigest() == version["sha256"]


async def test_a_large_model_arrives_in_parts_and_objects_are_replaced(store: IndependentStore, tmp_path: Path) -> None:
    large = tmp_path / "model"
    large.write_bytes(np.random.default_rng(1).bytes(20_000_001))
    destination = ObjectStore(store.url, "parts")
    assert await destination.read("nothing") is None
    await destination.write("lineage.json", b"{}")
    await destination.write("lineage.json", b'{"version": 1}')
    await destination.write("model", large)
    assert await destination.read("lineage.json") == b'{"version": 1}'
    objects = store.objects(tmp_path / "fetched")
    assert objects["models/parts/lineage.json"] == b'{"version": 1}'
    assert objects["models/parts/model"] == large.read_bytes()


async def test_a_wrong_key_is_refused_and_never_told(store: IndependentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base64 in its form, as Azure's keys are."""
    wrong = "d3Jvbmcgd3Jvbmcgd3Jvbmc="
    monkeypatch.setenv(store.secret, wrong)
    with pytest.raises(DestinationError, match=r"403 Forbidden") as refused:
        await ObjectStore(store.url, "refused").write("lineage.json", b"{}")
    assert wrong not in str(refused.value)

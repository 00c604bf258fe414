"""Deliveries on their own: what is carried where, and what becomes of failures."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from metisfl.logs import ContextLogger, logger
from metisfl.spec import parse_federation
from metisfl.spec.output import OutputSpec, OutputVersions
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.output import delivery as module
from metisfl_controller.output.delivery import Delivery, wanted
from metisfl_controller.output.destination import DestinationError, ObjectStore
from metisfl_controller.output.lineage import delivered_by, lineage, spec_digest
from metisfl_controller.state.records import Outcome, StoredVersion

UID = "0123456789abcdef"
ENDED = Outcome("Complete", "MaxRoundsReached", "done", 9.0, 2)


def federation(**output: Any) -> Any:
    document = {
        "apiVersion": "metisfl.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": "demo"},
        "spec": {"learner": {"entrypoint": "m:C"}, "learnerGroups": [{"name": "a"}]},
    }
    if output:
        document["spec"]["output"] = output
    return parse_federation(document)


def version(number: int, stored: bool = True) -> StoredVersion:
    return StoredVersion(number, f"{number:064x}", 3, float(number), stored)


class Progress:
    """Committed versions as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcome: Outcome | None = None
        self.version_metrics: dict[int, Any] = {}
        self.store = self
        self._versions: list[StoredVersion] = []

    def commit(self, number: int) -> None:
        self._versions.append(version(number))
        self.path(self._versions[-1]).write_bytes(f"v{number}".encode())

    def versions(self) -> list[StoredVersion]:
        return list(self._versions)

    def stored(self) -> list[StoredVersion]:
        return [version for version in self._versions if version.stored]

    def rounds(self) -> list[Any]:
        return []

    def path(self, stored: StoredVersion) -> Path:
        return self.folder / stored.file

    async def in_store(self, call: Callable[[], Any]) -> Any:
        return call()


class Shelf:
    """A destination in memory; `broken` says whether it fails."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.order: list[str] = []
        self.attempts = 0
        self.broken = False

    async def read(self, name: str) -> bytes | None:
        if self.broken:
            raise DestinationError("out of order")
        return self.objects.get(name)

    async def write(self, name: str, content: Path | bytes) -> None:
        self.attempts += 1
        if self.broken:
            raise DestinationError("out of order")
        self.objects[name] = await asyncio.to_thread(content.read_bytes) if isinstance(content, Path) else content
        self.order.append(name)


@pytest.fixture
def log() -> ContextLogger:
    logging.getLogger("test.output").setLevel(logging.CRITICAL)
    return logger("test.output")


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(tmp_path)


@pytest.fixture
def deliver(progress: Progress, log: ContextLogger, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Delivery]:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01)

    def made(shelf: Shelf, versions: str = "All") -> Delivery:
        found = federation(url="s3://bucket/x", versions=versions)
        return delivery_of(lambda: found, progress, lambda url, folder: shelf, log)

    return made


def delivery_of(
    current: Callable[[], Any], progress: Progress, open_: Callable[[str, str], Any], log: ContextLogger
) -> Delivery:
    metrics = ControllerMetrics(CollectorRegistry(), "demo", logger("test"))
    return Delivery(current, UID, progress, open_, metrics, log)  # type: ignore[arg-type]


class Edited:
    """A federation whose output is edited while it runs; each URL leads to a shelf of its own."""

    def __init__(self, progress: Progress, log: ContextLogger) -> None:
        self.shelves = {"s3://bucket/x": Shelf(), "s3://bucket/y": Shelf()}
        self.looks = 0
        self._federation = federation(url="s3://bucket/x", versions="All")
        self.delivery = delivery_of(self._look, progress, lambda url, folder: self.shelves[url], log)

    def edit(self, **output: Any) -> None:
        self._federation = federation(**output)
        self.delivery.poke()

    def told(self, url: str) -> set[int]:
        return delivered_by(self.shelves[url].objects.get("lineage.json"), UID)

    def _look(self) -> Any:
        self.looks += 1
        return self._federation


async def test_versions_arrive_in_order_each_before_the_file_that_tells_of_it(
    progress: Progress, deliver: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINEAGE_SECONDS", 0.0)
    delivery = deliver(shelf := Shelf())
    progress.commit(0)
    progress.commit(1)
    delivery.start()
    await delivery.finish(5)
    await delivery.close()
    assert shelf.order == [
        "lineage.json",
        "v000000.safetensors",
        "lineage.json",
        "v000001.safetensors",
        "lineage.json",
    ]
    assert delivered_by(shelf.objects["lineage.json"], UID) == {0, 1}
    assert shelf.objects["v000001.safetensors"] == b"v1"


async def test_quick_versions_share_a_lineage_file(progress: Progress, deliver: Callable[..., Delivery]) -> None:
    delivery = deliver(shelf := Shelf())
    delivery.start()
    for number in range(5):
        progress.commit(number)
        await delivery.finish(5)
    assert [name for name in shelf.order if name == "lineage.json"] == ["lineage.json"]
    assert len(shelf.order) == 6
    progress.outcome = ENDED
    await delivery.finish(5)
    assert delivered_by(shelf.objects["lineage.json"], UID) == {0, 1, 2, 3, 4}
    await delivery.close()


async def test_what_has_arrived_is_told_in_time_though_nothing_follows(
    progress: Progress, deliver: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINEAGE_SECONDS", 0.05)
    delivery = deliver(shelf := Shelf())
    progress.commit(0)
    delivery.start()
    async with asyncio.timeout(5):
        while delivered_by(shelf.objects.get("lineage.json"), UID) != {0}:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
    written = len(shelf.order)
    assert written <= 3
    await asyncio.sleep(0.2)
    assert len(shelf.order) == written, "nothing new, nothing written"
    await delivery.close()


async def test_the_end_of_the_controller_tells_of_what_has_arrived(
    progress: Progress, deliver: Callable[..., Delivery]
) -> None:
    delivery = deliver(shelf := Shelf())
    progress.commit(0)
    delivery.start()
    await delivery.finish(5)
    assert delivered_by(shelf.objects["lineage.json"], UID) == set()
    await delivery.close()
    assert delivered_by(shelf.objects["lineage.json"], UID) == {0}


async def test_rounds_that_deliver_nothing_write_nothing(progress: Progress, deliver: Callable[..., Delivery]) -> None:
    delivery = deliver(shelf := Shelf(), "Final")
    delivery.start()
    for number in range(3):
        progress.commit(number)
        await delivery.finish(5)
    assert shelf.order == ["lineage.json"]
    progress.outcome = ENDED
    await delivery.finish(5)
    await delivery.close()
    assert shelf.order[1:] == ["lineage.json", "v000002.safetensors", "lineage.json"]
    assert json.loads(shelf.objects["lineage.json"])["outcome"]["reason"] == "MaxRoundsReached"


async def test_what_fails_is_told_and_tried_again(progress: Progress, deliver: Callable[..., Delivery]) -> None:
    shelf = Shelf()
    shelf.broken, delivery = True, deliver(shelf)
    progress.commit(0)
    delivery.start()
    await delivery.finish(0.05)  # comes back although nothing arrived
    assert delivery.document is not None
    assert (delivery.document.delivered, delivery.document.message) == (None, "out of order")
    shelf.broken = False
    await delivery.finish(5)
    assert delivery.document is not None
    assert (delivery.document.delivered, delivery.document.message, delivery.document.pending) == (0, "", 0)
    await delivery.close()


async def test_whoever_starts_again_carries_nothing_twice(progress: Progress, deliver: Callable[..., Delivery]) -> None:
    shelf = Shelf()
    for number in range(2):
        progress.commit(number)
        delivery = deliver(shelf)
        delivery.start()
        await delivery.finish(5)
        await delivery.close()
    assert [name for name in shelf.order if name != "lineage.json"] == ["v000000.safetensors", "v000001.safetensors"]


async def test_a_version_that_is_kept_no_longer_is_left_out(
    progress: Progress, deliver: Callable[..., Delivery]
) -> None:
    delivery = deliver(shelf := Shelf())
    progress.commit(0)
    progress.commit(1)
    progress.path(version(0)).unlink()
    delivery.start()
    await delivery.finish(5)
    await delivery.close()
    assert delivered_by(shelf.objects["lineage.json"], UID) == {1}


async def test_closing_lets_go_of_whoever_waits(deliver: Callable[..., Delivery]) -> None:
    shelf = Shelf()
    shelf.broken, delivery = True, deliver(shelf)
    delivery.start()
    waiting = asyncio.create_task(delivery.finish(60))
    await asyncio.sleep(0)
    await delivery.close()
    await asyncio.wait_for(waiting, 5)


async def test_without_an_output_nothing_is_waited_for(progress: Progress, log: ContextLogger) -> None:
    def never(url: str, folder: str) -> Any:
        raise AssertionError("nothing is asked for")

    delivery = delivery_of(federation, progress, never, log)
    delivery.start()
    await asyncio.wait_for(delivery.finish(60), 5)
    assert delivery.document is None
    await delivery.close()


@pytest.fixture
async def edited(progress: Progress, log: ContextLogger) -> AsyncIterator[Edited]:
    """Version 0 has arrived, and the lineage file does not tell of it yet."""
    edited = Edited(progress, log)
    progress.commit(0)
    edited.delivery.start()
    await edited.delivery.finish(5)
    assert edited.told("s3://bucket/x") == set()
    yield edited
    await edited.delivery.close()


@pytest.mark.parametrize("broken", [False, True])
async def test_a_destination_that_is_asked_for_no_longer_is_told_of_once_and_left(
    edited: Edited, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINEAGE_SECONDS", 0.0)
    shelf = edited.shelves["s3://bucket/x"]
    shelf.broken = broken
    attempts = shelf.attempts
    edited.edit()
    async with asyncio.timeout(5):
        while shelf.attempts == attempts:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
    assert edited.told("s3://bucket/x") == (set() if broken else {0})
    looks = edited.looks
    for _ in range(100):
        await asyncio.sleep(0)
    assert (edited.looks, shelf.attempts) == (looks, attempts + 1), "it rests"


async def test_another_url_is_served_once_the_old_one_is_told_of_what_lies_there(edited: Edited) -> None:
    edited.edit(url="s3://bucket/y", versions="All")
    await edited.delivery.finish(5)
    assert edited.told("s3://bucket/x") == {0}
    assert edited.shelves["s3://bucket/y"].order == ["lineage.json", "v000000.safetensors"]


async def test_an_old_destination_that_fails_does_not_stop_the_new_one(edited: Edited) -> None:
    edited.shelves["s3://bucket/x"].broken = True
    edited.edit(url="s3://bucket/y", versions="All")
    await edited.delivery.finish(5)
    assert edited.shelves["s3://bucket/y"].order == ["lineage.json", "v000000.safetensors"]


async def test_closing_outlives_a_history_that_cannot_be_read(
    edited: Edited, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[Any]:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(progress, "rounds", broken)
    await edited.delivery.close()
    assert edited.told("s3://bucket/x") == set()


def test_the_published_version_goes_first_and_alone_where_only_it_is_wanted() -> None:
    versions = [version(1), version(2), version(3)]
    assert wanted(versions, None, OutputVersions.FINAL) == []
    assert wanted(versions, ENDED, OutputVersions.FINAL) == [version(2)]
    assert wanted(versions, None, OutputVersions.ALL) == [version(1), version(2), version(3)]
    assert wanted(versions, ENDED, OutputVersions.ALL) == [version(2), version(1), version(3)]


def test_lineage_names_spec_versions_and_end() -> None:
    spec = federation().spec
    text = lineage("demo", UID, spec, [version(1), version(2)], [], {}, ENDED, [2])
    document = json.loads(text)
    assert document["specSha256"] == spec_digest(spec)
    assert [entry.get("file") for entry in document["versions"]] == [None, "v000002.safetensors"]
    assert document["published"] == 2
    assert delivered_by(text, UID) == {2}


@pytest.mark.parametrize("text", [None, b"", b"[]", b"not JSON", b'{"uid": "other", "versions": [{"version": 1}]}'])
def test_a_file_that_is_not_ours_says_nothing(text: bytes | None) -> None:
    assert delivered_by(text, UID) == set()


async def test_a_folder_is_a_destination_too(tmp_path: Path) -> None:
    folder = ObjectStore(f"file://{tmp_path}/models", "demo")
    assert await folder.read("a") is None
    await folder.write("a", b"words")
    assert await folder.read("a") == b"words"
    assert (tmp_path / "models" / "demo" / "a").read_bytes() == b"words"


def test_a_url_that_makes_no_sense_is_told() -> None:
    with pytest.raises(DestinationError):
        ObjectStore("az://", "demo")


@pytest.mark.parametrize(
    ("url", "config", "prefix"),
    [
        ("s3://bucket/a/b", {"bucket": "bucket"}, "a/b"),
        ("gs://bucket/a", {"bucket": "bucket"}, "a"),
        ("az://container/a", {"container_name": "container"}, "a"),
        (
            "abfss://container@site.dfs.core.windows.net/a",
            {"container_name": "container", "account_name": "site"},
            "a",
        ),
    ],
)
def test_urls_of_the_documentation_lead_where_it_says(
    url: str, config: dict[str, str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "site")
    assert OutputSpec(url=url).url == url
    store: Any = ObjectStore(url, "demo")._store
    assert (config.items() <= dict(store.config).items(), store.prefix) == (True, prefix)

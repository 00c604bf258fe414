"""Which versions are kept as they travel, and which are read back."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.sections import Sections
from metisfl_controller.conductor.served import IN_MEMORY, Served
from metisfl_controller.server.downloads import GlobalModel, RetiredError
from metisfl_controller.state.records import StateError


class Model:
    """What of a GlobalModel matters here."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.retired = False

    def retire(self) -> None:
        self.retired = True


class Files:
    """Versions with a file, and how often each was read."""

    def __init__(self, *versions: int) -> None:
        self.versions = set(versions)
        self.read: list[int] = []
        self.damaged: set[int] = set()

    async def __call__(self, version: int) -> Model | None:
        self.read.append(version)
        await asyncio.sleep(0)
        if version in self.damaged:
            raise StateError("damaged")
        return Model(version) if version in self.versions else None


def serving(files: Files, *versions: int) -> tuple[Served, dict[int, Model]]:
    served, models = Served(files), {version: Model(version) for version in versions}  # type: ignore[arg-type]
    for version in versions:
        served.add(models[version])  # type: ignore[arg-type]
        served.keep(set(versions[: versions.index(version) + 1]))
    return served, models


async def test_memory_is_bounded_by_the_newest_of_those_in_use() -> None:
    files = Files(*range(6))
    served, models = serving(files, *range(6))
    assert [version for version, model in models.items() if not model.retired] == [4, 5]
    assert len([model for model in models.values() if not model.retired]) == IN_MEMORY
    assert await served.of(5) is models[5]
    assert files.read == []


async def test_what_nobody_uses_leaves_memory_at_once() -> None:
    served, models = serving(Files(), 0, 1)
    served.keep({1})
    assert (models[0].retired, models[1].retired) == (True, False)
    assert await served.of(0) is None


async def test_all_who_ask_for_an_older_version_share_what_was_read() -> None:
    files = Files(0)
    served, _ = serving(files, 1, 2, 3)
    served.keep({0, 3})
    found = await asyncio.gather(*(served.of(0) for _ in range(5)))
    assert len(set(map(id, found))) == 1
    assert files.read == [0]
    served.keep({3})
    await served.of(0)
    assert files.read == [0, 0], "it was forgotten when nobody used it any more"


async def test_who_gives_up_waiting_does_not_take_it_from_others() -> None:
    served, _ = serving(Files(0), 1)
    one, other = (asyncio.ensure_future(served.of(0)) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    model = await other
    assert model is not None
    assert model.version == 0


async def test_what_could_not_be_read_is_tried_again() -> None:
    files = Files(0)
    files.damaged = {0}
    served, _ = serving(files, 1)
    with pytest.raises(StateError):
        await served.of(0)
    files.damaged = set()
    assert await served.of(0) is not None
    assert await served.of(7) is None


async def test_a_download_of_a_version_that_leaves_memory_is_broken_off() -> None:
    layout = Layout.of({"w": np.zeros(3 * CHUNK_BYTES // 4, np.float32)})
    model = GlobalModel(0, Sections.of(Encoding(layout, Codec.FLOAT32)), [layout.allocate()])
    sent: list[int] = []
    messages = model.stream([], sent.append)
    for _ in range(3):
        await anext(messages)
    model.retire()
    with pytest.raises(RetiredError, match="version 0 is not kept in memory"):
        await anext(messages)
    assert sent == [CHUNK_BYTES] * 2, "so much need not be sent again"

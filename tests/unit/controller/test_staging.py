"""Places of uploads: memory is reused, what is moved aside keeps its bytes, and nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from metisfl.logs import logger
from metisfl_controller.aggregation import admission, staging
from metisfl_controller.aggregation.admission import Use
from metisfl_controller.aggregation.mapped import MappedFile, is_mapped
from metisfl_controller.aggregation.memory import MemoryPlan
from metisfl_controller.aggregation.staging import Place, StagingPool, remove_left_overs

NBYTES = 1000
WAIT_SECONDS = 30.0

MakePool = Callable[..., StagingPool]


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[MakePool]:
    with ThreadPoolExecutor(2) as executor:

        def make(slots: int = 1, on_disk: bool = False) -> StagingPool:
            plan = MemoryPlan(NBYTES, slots, on_disk)
            return StagingPool(tmp_path, plan, executor, logger("test"))

        yield make


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads are judged after a moment."""
    monkeypatch.setattr(admission, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(staging, "LOOK_SECONDS", 0.005)


def request(pool: StagingPool, received: int = 0) -> Place:
    return pool.request(lambda: received)


async def let_in(place: Place) -> None:
    await asyncio.wait_for(asyncio.shield(place.let_in), WAIT_SECONDS)


async def write(place: Place, offset: int, data: bytes) -> None:
    writing = place.write(offset, memoryview(data))
    if writing is not None:
        await writing


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)


async def test_memory_is_reused_and_others_wait_for_it(make_pool: MakePool) -> None:
    pool = make_pool(slots=2)
    first, second, third = (request(pool) for _ in range(3))
    assert (first.in_memory, second.in_memory, third.let_in.done()) == (True, True, False)
    assert all(place.buffer.ctypes.data % 64 == 0 and place.buffer.size == NBYTES for place in (first, second))
    buffer = second.buffer
    second.leave()
    second.leave()
    assert third.in_memory
    assert third.buffer is buffer


async def test_no_two_places_in_use_share_bytes(make_pool: MakePool) -> None:
    pool = make_pool(slots=8)
    for _ in range(2):
        places = [request(pool) for _ in range(8)]
        for number, place in enumerate(places):
            place.buffer[:] = number
        for number, place in enumerate(places):
            assert (place.buffer == number).all()
            place.leave()


async def test_who_stops_waiting_is_not_let_in(make_pool: MakePool) -> None:
    pool = make_pool()
    first, second, third = (request(pool) for _ in range(3))
    second.leave()
    first.leave()
    assert second.let_in.cancelled()
    assert third.in_memory


async def test_what_is_moved_aside_keeps_its_bytes_and_takes_more(make_pool: MakePool) -> None:
    pool = make_pool()
    received = 600
    first = pool.request(lambda: received)
    content = np.random.default_rng(1).bytes(NBYTES)
    await write(first, 0, content[:600])
    memory = first.buffer
    first.turn(Use.BROKEN)
    second = request(pool)
    assert not first.in_memory
    # At once, while it is being copied.
    await write(first, 600, content[600:])
    await let_in(second)
    assert second.buffer is memory
    second.buffer[:] = 0
    assert first.buffer.tobytes() == content
    assert is_mapped(first.buffer)


async def test_a_stalled_upload_is_moved_aside(make_pool: MakePool, impatient: None) -> None:
    pool = make_pool()
    stalled, other = request(pool), request(pool)
    assert not other.let_in.done()
    await let_in(other)
    assert (stalled.in_memory, other.in_memory) == (False, True)


async def test_behind_stalled_uploads_everybody_comes_in(make_pool: MakePool, impatient: None) -> None:
    pool = make_pool(slots=2)
    places = [request(pool) for _ in range(20)]
    for place in places:
        await let_in(place)
    await asyncio.gather(*(place.settled() for place in places))
    for place in places:
        place.leave()
    assert request(pool).in_memory


async def test_leaving_in_mid_move_gives_memory_back_when_it_has_been_read(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, really_write = Event(), MappedFile.write

    def slowly(file: MappedFile, offset: int, data: memoryview) -> None:
        go_on.wait(WAIT_SECONDS)
        really_write(file, offset, data)

    monkeypatch.setattr(MappedFile, "write", slowly)
    before = open_descriptors()
    pool = make_pool()
    first = request(pool, 500)
    first.turn(Use.BROKEN)
    second = request(pool)
    first.leave()
    await asyncio.sleep(0)
    assert not second.let_in.done()
    go_on.set()
    await let_in(second)
    assert second.in_memory
    await first.settled()
    await asyncio.sleep(0)
    assert open_descriptors() <= before + 1  # the mapping of first.buffer


async def test_on_disk_everything_is_a_file(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool(slots=2, on_disk=True)
    first, second, third = (request(pool) for _ in range(3))
    assert not third.let_in.done()
    content = np.random.default_rng(1).bytes(NBYTES)
    await write(first, 0, content)
    assert is_mapped(first.buffer)
    assert first.buffer.tobytes() == content
    assert names(tmp_path) == []
    second.leave()
    assert third.let_in.done()
    # It lies where it would be moved to.
    first.turn(Use.PARKED)
    assert request(pool).let_in.done()


async def test_a_write_that_nobody_waits_for_is_in_place_once_settled(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, really_write = Event(), MappedFile.write

    def slowly(file: MappedFile, offset: int, data: memoryview) -> None:
        go_on.wait(WAIT_SECONDS)
        really_write(file, offset, data)

    monkeypatch.setattr(MappedFile, "write", slowly)
    place = request(make_pool(on_disk=True))
    writing = asyncio.create_task(write(place, 0, b"x" * NBYTES))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    await place.settled()
    assert place.buffer.tobytes() == b"x" * NBYTES


async def test_a_chunk_that_came_while_its_upload_was_copied_is_not_lost(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stream breaks before the copy has ended; the chunk counts as received all the same."""
    go_on, really_write = Event(), MappedFile.write

    def slowly(file: MappedFile, offset: int, data: memoryview) -> None:
        go_on.wait(WAIT_SECONDS)
        really_write(file, offset, data)

    monkeypatch.setattr(MappedFile, "write", slowly)
    pool = make_pool()
    place = request(pool, 600)
    await write(place, 0, b"x" * 600)
    place.turn(Use.BROKEN)
    request(pool)
    writing = asyncio.create_task(write(place, 600, b"y" * 400))
    await asyncio.sleep(0.01)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    go_on.set()
    await place.settled()
    assert place.buffer.tobytes() == b"x" * 600 + b"y" * 400


async def test_descriptors_of_files_are_given_back(make_pool: MakePool) -> None:
    pool = make_pool(on_disk=True)
    before = open_descriptors()
    for _ in range(50):
        place = request(pool)
        await write(place, 0, b"abc")
        place.leave()
    del place
    assert open_descriptors() <= before + 3  # the executor's threads come with none


async def test_what_is_kept_is_not_reused(make_pool: MakePool) -> None:
    pool = make_pool()
    place = request(pool)
    kept = place.keep()
    kept[:] = 7
    request(pool).buffer[:] = 8
    assert (kept == 7).all()


async def test_what_was_kept_in_a_file_stays_readable(make_pool: MakePool) -> None:
    place = request(make_pool(on_disk=True))
    await write(place, 0, b"y" * NBYTES)
    kept = place.keep()
    del place
    assert kept.tobytes() == b"y" * NBYTES


async def test_a_full_disk_is_told_only_when_nobody_could_make_room(make_pool: MakePool, full_disk: None) -> None:
    place = request(make_pool(on_disk=True))
    with pytest.raises(OSError, match="No space left"):
        await place.let_in
    assert place.has_left


async def test_with_a_full_disk_uploads_wait_for_memory(make_pool: MakePool, full_disk: None, tmp_path: Path) -> None:
    before = open_descriptors()
    pool = make_pool()
    first = request(pool)
    first.turn(Use.BROKEN)
    second = request(pool)
    assert first.in_memory
    assert not second.let_in.done()
    assert names(tmp_path) == []
    assert open_descriptors() <= before
    first.leave()
    assert second.in_memory


async def test_a_disk_that_fails_is_told_to_whoever_goes_on(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(MappedFile, "write", fail)
    pool = make_pool()
    first = request(pool, 10)
    first.turn(Use.BROKEN)
    second = request(pool)
    await let_in(second)
    with pytest.raises(OSError, match="Input/output"):
        await first.settled()
    await first.settled()


async def test_a_model_that_memory_cannot_hold_goes_to_disk(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(_: int) -> None:
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr(staging, "aligned_zeros", no_memory)
    place = request(make_pool())
    assert place.let_in.done()
    assert is_mapped(place.buffer)


def test_left_overs_of_a_killed_controller_are_removed(tmp_path: Path) -> None:
    directory = tmp_path / "staging"
    remove_left_overs(directory)
    (directory / "upload-abc").write_bytes(b"left over")
    (directory / "other").write_bytes(b"not ours")
    remove_left_overs(directory)
    assert [path.name for path in directory.iterdir()] == ["other"]

"""Staging slots: memory is reused, the rest spills to disk, and nothing is left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from metisfl_controller.aggregation.staging import StagingPool


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_memory_slots_are_reused_and_spilling_begins_beyond_them(tmp_path: Path) -> None:
    pool = StagingPool(tmp_path, 1000, memory_slots=2)
    slots = [pool.acquire() for _ in range(4)]
    assert [slot.in_memory for slot in slots] == [True, True, False, False]
    assert all(slot.buffer.size == 1000 and slot.buffer.ctypes.data % 64 == 0 for slot in slots)
    slots[1].release()
    again = pool.acquire()
    assert again.in_memory
    assert again.buffer is slots[1].buffer
    assert not pool.acquire().in_memory


def test_no_two_slots_in_use_share_bytes(tmp_path: Path) -> None:
    pool = StagingPool(tmp_path, 64, memory_slots=3)
    slots = [pool.acquire() for _ in range(8)]
    for number, slot in enumerate(slots):
        slot.buffer[:] = number
    for number, slot in enumerate(slots):
        assert (slot.buffer == number).all()
        slot.release()
    assert sum(pool.acquire().in_memory for _ in range(8)) == 3


def test_nothing_of_a_spill_is_ever_seen_in_the_directory(tmp_path: Path) -> None:
    pool = StagingPool(tmp_path / "staging", 1 << 16, memory_slots=0)
    slot = pool.acquire()
    slot.buffer[:] = np.arange(1 << 16, dtype=np.uint32).astype(np.uint8)
    assert list((tmp_path / "staging").iterdir()) == []
    slot.release()


def test_descriptors_of_spill_files_are_given_back(tmp_path: Path) -> None:
    pool = StagingPool(tmp_path, 4096, memory_slots=0)
    before = open_descriptors()
    for _ in range(50):
        pool.acquire().release()
    assert open_descriptors() <= before + 2


def test_a_full_disk_is_an_oserror_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pool = StagingPool(tmp_path, 1 << 20, memory_slots=1)
    assert pool.acquire().in_memory
    before = open_descriptors()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        pool.acquire()
    assert list(tmp_path.iterdir()) == []
    assert open_descriptors() == before


def test_a_model_that_memory_cannot_hold_goes_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(_: int) -> None:
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr("metisfl_controller.aggregation.staging.aligned_zeros", no_memory)
    pool = StagingPool(tmp_path, 4096, memory_slots=2)
    slot = pool.acquire()
    assert not slot.in_memory
    assert slot.buffer.size == 4096


def test_left_overs_of_a_killed_controller_are_removed(tmp_path: Path) -> None:
    (tmp_path / "upload-abc").write_bytes(b"left over")
    (tmp_path / "other").write_bytes(b"not ours")
    StagingPool(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_model_without_bytes_can_be_spilled(tmp_path: Path) -> None:
    slot = StagingPool(tmp_path, 0, memory_slots=0).acquire()
    assert slot.buffer.size == 0

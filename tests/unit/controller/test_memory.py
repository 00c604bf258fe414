"""Whose memory models are: the plan under a budget, limits of cgroups, and arrays that are files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.wire.layout import Layout, aligned_zeros
from metisfl_controller.aggregation.mapped import MappedFile, is_mapped, mapped_zeros, release
from metisfl_controller.aggregation.memory import MAX_SLOTS, SLOTS, SMALL_BYTES, MemoryPlan, ModelMemory, sums_bytes
from metisfl_controller.memory_limit import available_memory

MIB = 1 << 20
GIB = 1 << 30


def floats(parameters: int) -> Layout:
    # The strides of a zero make an array of any shape out of one element.
    return Layout.of({"w": np.broadcast_to(np.float32(0), (parameters,))})


def plan(budget: int, layout: Layout, upload: int | None = None) -> MemoryPlan:
    return MemoryPlan.of(budget, layout, upload or layout.nbytes, sums_bytes(layout))


# ---- the plan


@pytest.mark.parametrize(
    ("parameters", "budget", "slots", "on_disk"),
    [
        (10_000_000, 14 * GIB, 4, False),
        (1_000_000, 14 * GIB, 33, False),
        (10_000, 14 * GIB, 3355, False),
        (1, 14 * GIB, MAX_SLOTS, False),
        (100_000_000, 3 * GIB, 3, False),
        (100_000_000, 2 * GIB, 4, True),
        (1_000_000_000, 2 * GIB, 4, True),
    ],
)
def test_plans_of_known_sizes(parameters: int, budget: int, slots: int, on_disk: bool) -> None:
    found = plan(budget, floats(parameters))
    assert (found.slots, found.on_disk, found.slot_bytes) == (slots, on_disk, 4 * parameters)


@given(
    parameters=st.integers(1, 10**11),
    budget=st.integers(1, 1 << 42),
    share=st.sampled_from([1, 2, 4, 100]),
)
def test_what_lies_in_memory_fits_the_budget(parameters: int, budget: int, share: int) -> None:
    layout = floats(parameters)
    upload = -(-layout.nbytes // share)
    found = plan(budget, layout, upload)
    beside_slots = 8 * parameters + 3 * layout.nbytes
    assert 1 <= found.slots <= max(SLOTS, SMALL_BYTES // upload)
    if found.on_disk:
        assert beside_slots + upload > budget
    else:
        assert beside_slots + found.slots * upload <= budget


def test_versions_that_are_kept_for_tasks_under_way_take_slots(tmp_path: Path) -> None:
    layout = floats(100_000_000)
    one, two = (ModelMemory(3 * GIB, tmp_path, travelling=travelling).plan(layout) for travelling in (1, 2))
    assert (one.slots, two.slots) == (3, 2)


def test_integers_need_sums_of_eight_bytes_as_well() -> None:
    layout = Layout.of({"w": np.broadcast_to(np.int8(0), (MIB,))})
    assert not plan(12 * MIB, layout).on_disk
    assert plan(12 * MIB - 1, layout).on_disk


def test_buffers_come_from_where_the_plan_says(tmp_path: Path) -> None:
    layout = floats(1000)
    assert not is_mapped(ModelMemory(1 * MIB, tmp_path).allocator(layout)(4000))
    buffer = ModelMemory(1000, tmp_path).allocator(layout)(4000)
    assert is_mapped(buffer)
    assert buffer.size == 4000
    assert not buffer.any()


# ---- limits


def machine(tmp_path: Path, groups: str, **limits: str) -> tuple[Path, Path]:
    """Folders like /sys/fs/cgroup and /proc; limits by path, with '__' for '/'."""
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree:         123 kB\n")
    (proc / "self/cgroup").write_text(groups)
    for path, text in limits.items():
        file = root / path.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root, proc


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {}, 16 * GIB),
        ("0::/\n", {"memory_dot_max": "max"}, 16 * GIB),
        ("0::/\n", {"memory_dot_max": str(2 * GIB)}, 2 * GIB),
        ("0::/pod/container\n", {"pod__container__memory_dot_max": "max", "pod__memory_dot_max": str(GIB)}, GIB),
        ("0::/pod/container\n", {"pod__container__memory_dot_max": str(GIB), "pod__memory_dot_max": "max"}, GIB),
        # In a container the host's path is out of sight, and the root is the container's own group.
        ("0::/kubepods/pod1/abc\n", {"memory_dot_max": str(3 * GIB)}, 3 * GIB),
        ("5:memory:/\n", {"memory__memory.limit_in_bytes": str(4 * GIB)}, 4 * GIB),
        ("5:cpu,memory:/a/b\n0::/\n", {"memory__a__memory.limit_in_bytes": str(GIB)}, GIB),
        ("5:memory:/\n", {"memory__memory.limit_in_bytes": "9223372036854771712"}, 16 * GIB),
        ("5:cpu:/a\n", {"memory__a__memory.limit_in_bytes": str(GIB)}, 16 * GIB),
    ],
)
def test_the_smallest_limit_around_the_process(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: int
) -> None:
    assert available_memory(*machine(tmp_path, groups, **limits)) == expected


def test_this_machine_has_memory() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert MIB < available_memory() <= physical


# ---- arrays that are files


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_what_is_written_and_what_is_stored_are_the_same_bytes(tmp_path: Path) -> None:
    file = MappedFile(tmp_path, 10_000)
    file.write(100, memoryview(b"hello"))
    file.buffer[105] = 33
    part = file.buffer[96:128].view(np.uint16)
    release(part, written=True)
    release(file.buffer, written=False)
    assert file.buffer[100:106].tobytes() == b"hello!"
    assert list(tmp_path.iterdir()) == []
    file.close()
    file.close()


def test_released_pages_are_not_resident(tmp_path: Path) -> None:
    """The mapping's Rss as the kernel counts it."""

    def resident() -> int:
        lines = Path("/proc/self/smaps").read_text().splitlines()
        at = next(i for i, line in enumerate(lines) if str(tmp_path) in line)
        return next(int(line.split()[1]) for line in lines[at:] if line.startswith("Rss:"))

    buffer = mapped_zeros(tmp_path, 8 * MIB)
    buffer[:] = 7
    assert resident() == 8 * 1024
    release(buffer[: 4 * MIB], written=True)
    assert resident() == 4 * 1024
    release(buffer, written=True)
    assert resident() == 0
    assert (buffer == 7).all()


def test_large_writes_are_synced_as_they_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    file = MappedFile(tmp_path, 100 * MIB)
    content = np.random.default_rng(1).integers(0, 256, 100 * MIB, dtype=np.uint8)
    file.write(0, content.data)
    assert len(synced) == 3
    np.testing.assert_array_equal(file.buffer, content)
    file.close()


def test_releasing_ordinary_memory_changes_nothing() -> None:
    for array in (np.arange(5), aligned_zeros(4096), np.zeros(0), np.frombuffer(b"abc", np.uint8)):
        before = array.copy()
        release(array, written=True)
        np.testing.assert_array_equal(array, before)


def test_a_full_disk_is_an_oserror_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = open_descriptors()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        MappedFile(tmp_path, MIB)
    assert list(tmp_path.iterdir()) == []
    assert open_descriptors() == before


def test_a_model_without_bytes_can_be_mapped(tmp_path: Path) -> None:
    buffer = mapped_zeros(tmp_path, 0)
    assert buffer.size == 0
    release(buffer, written=True)

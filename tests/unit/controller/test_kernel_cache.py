"""Where compiled kernels are looked for, and that one release never uses another's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from metisfl_controller import kernel_cache
from metisfl_controller.kernel_cache import prepare

MODERN = "flags\t\t: fpu sse4_1 sse4_2 ssse3 popcnt cx16 avx avx2 bmi1 bmi2 f16c fma abm movbe avx512f\n"


@pytest.fixture
def processor(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nvendor_id\t: AuthenticAMD\n{MODERN}")
    return path


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), **more}


def test_the_folder_belongs_to_the_sources_and_the_compiler(
    tmp_path: Path, processor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "kernels"
    sources.mkdir()
    monkeypatch.setattr(kernel_cache, "_SOURCES", sources)
    folders = [prepare(environment(tmp_path), processor) for _ in range(2)]
    (sources / "adders.py").write_text("x = 1")
    folders.append(prepare(environment(tmp_path), processor))
    (sources / "adders.py").write_text("x = 2")
    folders.append(prepare(environment(tmp_path), processor))
    monkeypatch.setattr(kernel_cache, "version", lambda _: "999")
    folders.append(prepare(environment(tmp_path), processor))
    assert folders[0] == folders[1]
    assert len(set(folders)) == 4
    assert {folder.parent for folder in folders} == {tmp_path / "cache"}


def test_a_child_process_uses_its_parents_folder(tmp_path: Path, processor: Path) -> None:
    variables = environment(tmp_path)
    folder = prepare(variables, processor)
    assert variables["NUMBA_CACHE_DIR"] == str(folder)
    assert prepare(variables, processor) == folder


def test_an_empty_cache_starts_as_a_copy_of_the_seed(tmp_path: Path, processor: Path) -> None:
    baked = prepare({"NUMBA_CACHE_DIR": str(tmp_path / "image")}, processor)
    (baked / "kernels").mkdir(parents=True)
    (baked / "kernels/fold.nbi").write_bytes(b"compiled")
    # As a read-only root of another user would have it.
    baked.chmod(0o555)
    variables = environment(tmp_path, METISFL_KERNEL_SEED=str(tmp_path / "image"))
    folder = prepare(variables, processor)
    assert (folder / "kernels/fold.nbi").read_bytes() == b"compiled"
    # What is there already stays.
    (folder / "kernels/fold.nbi").write_bytes(b"newer")
    (folder / "more").write_bytes(b"")
    prepare(variables, processor)
    assert (folder / "kernels/fold.nbi").read_bytes() == b"newer"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_seed_of_another_release_is_of_no_use(tmp_path: Path, processor: Path) -> None:
    (tmp_path / "image" / "0123456789abcdef").mkdir(parents=True)
    folder = prepare(environment(tmp_path, METISFL_KERNEL_SEED=str(tmp_path / "image")), processor)
    assert list(folder.iterdir()) == []


def test_kernels_that_nobody_has_started_with_for_long_are_removed(
    tmp_path: Path, processor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    outdated, recent, foreign = cache / "0123456789abcdef", cache / "fedcba9876543210", cache / "somebody's"
    for folder in (outdated, recent, foreign):
        (folder / "kernels").mkdir(parents=True)
        age = kernel_cache.UNUSED_SECONDS + (-60 if folder is recent else 60)
        os.utime(folder, (time.time() - age,) * 2)
    own = prepare(environment(tmp_path), processor)
    assert set(cache.iterdir()) == {recent, foreign, own}
    # A start keeps them, whatever their age.
    os.utime(own, (0, 0))
    prepare(environment(tmp_path), processor)
    monkeypatch.setattr(kernel_cache, "version", lambda _: "999")
    prepare(environment(tmp_path), processor)
    assert own.exists()


def test_kernels_are_compiled_for_the_baseline_where_the_processor_has_it(tmp_path: Path, processor: Path) -> None:
    variables = environment(tmp_path)
    prepare(variables, processor)
    assert variables["NUMBA_CPU_NAME"] == "x86-64-v3"
    assert "+avx2" in variables["NUMBA_CPU_FEATURES"].split(",")
    assert "avx512" not in variables["NUMBA_CPU_FEATURES"]


@pytest.mark.parametrize("text", ["", MODERN.replace(" avx2", ""), "Features\t: fp asimd\n", None])
def test_other_processors_are_left_to_numba(tmp_path: Path, text: str | None) -> None:
    processor = tmp_path / "cpuinfo"
    if text is not None:
        processor.write_text(text)
    variables = environment(tmp_path)
    prepare(variables, processor)
    assert "NUMBA_CPU_NAME" not in variables


def test_a_wish_for_another_processor_is_kept(tmp_path: Path, processor: Path) -> None:
    variables = environment(tmp_path, NUMBA_CPU_NAME="generic")
    prepare(variables, processor)
    assert variables["NUMBA_CPU_NAME"] == "generic"
    assert "NUMBA_CPU_FEATURES" not in variables

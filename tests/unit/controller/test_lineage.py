"""Updates that are kept: what the files hold, which are evicted, and what a bad disk does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout, aligned_zeros
from metisfl_controller.rounds.tasks import Kind, TaskId
from metisfl_controller.state.lineage import Lineage

ARRAYS = {"w": np.linspace(-1, 1, 200, dtype=np.float32).reshape(20, 10), "n": np.arange(3)}
LAYOUT = Layout.of(ARRAYS)


def task(learner: str, base: int, incarnation: int = 1, attempt: int = 1) -> TaskId:
    return TaskId("uid", incarnation, Kind.TRAIN, base, learner, attempt)


def test_the_last_updates_of_each_learner_are_kept(tmp_path: Path) -> None:
    lineage = Lineage(tmp_path, 2, aligned_zeros)
    encoding = Encoding(LAYOUT, Codec.FLOAT32)
    for base in (0, 1, 10):
        for learner in ("a-0", "a-1"):
            if (base, learner) != (10, "a-1"):
                lineage.write(task(learner, base), encoding, LAYOUT.pack({**ARRAYS, "n": ARRAYS["n"] + base}))
    kept = lineage.updates()
    assert [(update.learner, update.base_version) for update in kept] == [
        ("a-0", 1),
        ("a-0", 10),
        ("a-1", 0),
        ("a-1", 1),
    ]
    for update in kept:
        path = tmp_path / update.file
        assert path.stat().st_size == update.bytes
        assert load_file(path)["n"].tolist() == (ARRAYS["n"] + update.base_version).tolist()


def test_attempts_and_restarts_are_told_apart_and_the_latest_stay(tmp_path: Path) -> None:
    lineage = Lineage(tmp_path, 2, aligned_zeros)
    for incarnation, attempt in ((1, 1), (1, 2), (2, 1)):
        lineage.write(task("a-0", 3, incarnation, attempt), Encoding(LAYOUT, Codec.FLOAT32), LAYOUT.pack(ARRAYS))
    assert [update.file for update in lineage.updates()] == [
        "a-0/v000003-0001-02.safetensors",
        "a-0/v000003-0002-01.safetensors",
    ]


def test_the_latest_stay_also_beyond_the_digits_of_a_name_and_after_beginning_again(tmp_path: Path) -> None:
    lineage = Lineage(tmp_path, 1, aligned_zeros)
    for base, incarnation, attempt in ((3, 1, 99), (3, 1, 100), (0, 2, 1)):
        lineage.write(task("a-0", base, incarnation, attempt), Encoding(LAYOUT, Codec.FLOAT32), LAYOUT.pack(ARRAYS))
        assert [update.file for update in lineage.updates()] == [
            f"a-0/v{base:06}-{incarnation:04}-{attempt:02}.safetensors"
        ]


@pytest.mark.parametrize("codec", Codec)
def test_files_hold_tensors_whatever_they_travelled_in(tmp_path: Path, codec: Codec) -> None:
    lineage = Lineage(tmp_path, 1, aligned_zeros)
    encoding = Encoding(LAYOUT, codec, 0.5, updates=not codec.lossless)
    base = LAYOUT.pack({"w": np.ones((20, 10), np.float32), "n": np.zeros(3, np.int64)})
    content = encoding.encode(LAYOUT.pack(ARRAYS), base=None if codec.lossless else base)
    lineage.write(task("a-0", 7), encoding, content)
    (update,) = lineage.updates()
    found = load_file(tmp_path / update.file)
    for name, array in LAYOUT.views(encoding.decode(content)).items():
        np.testing.assert_array_equal(found[name], array)
    with safe_open(tmp_path / update.file, "np") as file:
        assert file.metadata() == {
            "metisfl.learner": "a-0",
            "metisfl.base_version": "7",
            "metisfl.kind": "model" if codec.lossless else "update",
            "metisfl.codec": codec.value,
        }


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    lineage = Lineage(tmp_path, 1, aligned_zeros)
    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        lineage.write(task("a-0", 0), Encoding(LAYOUT, Codec.FLOAT32), LAYOUT.pack(ARRAYS))
    assert list((tmp_path / "a-0").iterdir()) == []
    assert lineage.updates() == []

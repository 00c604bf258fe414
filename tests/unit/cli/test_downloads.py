"""A model is saved whole or not at all."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.downloads import DownloadError, save


@given(chunks=st.lists(st.binary(max_size=100), max_size=10))
def test_what_arrives_is_what_is_saved(chunks: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("download") / "model"
    whole = b"".join(chunks)
    assert save(chunks, target, hashlib.sha256(whole).hexdigest().upper()) == len(whole)
    assert target.read_bytes() == whole


def test_a_damaged_model_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"old")
    with pytest.raises(DownloadError, match="arrived damaged"):
        save([b"new"], target, "00" * 32)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_broken_transfer_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        save(chunks(), tmp_path / "model", None)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    save([b"x"], tmp_path / "model", None)
    (tmp_path / "other").write_bytes(b"x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("model", "other")]
    assert modes[0] == modes[1]

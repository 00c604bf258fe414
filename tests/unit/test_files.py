"""Files are seen whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from metisfl.files import replacing, write_private


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_old_content_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
def test_an_error_leaves_nothing_behind(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "file"
    if there:
        path.write_bytes(b"old")
    with suppress(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [(found, found.read_bytes()) for found in tmp_path.iterdir()] == ([(path, b"old")] if there else [])


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        first.write(b"aa")
        second.write(b"b")
    assert path.read_bytes() == b"aa"


def test_permissions_are_those_of_any_new_file_or_the_owners_alone(tmp_path: Path, umask: int) -> None:
    with replacing(tmp_path / "file"):
        pass
    assert mode(tmp_path / "file") == 0o666 & ~umask
    private = tmp_path / "private"
    private.write_bytes(b"anybody's")
    private.chmod(0o644)
    write_private(private, b"mine")
    assert (mode(private), private.read_bytes()) == (0o600, b"mine")

"""Archives are read by one pass, which believes nothing that it has not checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Protocol

from metisfl.archive.history import check_history
from metisfl.archive.manifest import HISTORY, MANIFEST, MAX_MANIFEST_BYTES, MODELS, ArchiveError, Manifest, Member
from metisfl.archive.writing import PIECE_BYTES, padded
from metisfl.durability import sync

UNFINISHED = "restoring"
"""The folder of the state directory that an archive is unpacked in; no controller starts while it is there."""


_MORE = "it holds more than its manifest says"


class Source(Protocol):
    """Where an archive comes from: a file, or a request."""

    def read(self, size: int, /) -> bytes: ...


def verify(path: Path) -> tuple[Manifest, str]:
    """Read a whole archive; returns its manifest and its SHA-256. Its history takes a temporary file meanwhile.

    Raises ArchiveError for what is wrong with it, OSError when it cannot be read.
    """
    with path.open("rb") as file, tempfile.TemporaryDirectory() as folder:
        hashed, history = _Hashed(file), Path(folder) / HISTORY
        manifest = _read(hashed, lambda member: history.open("xb") if member.name == HISTORY else None)
        check_history(history, manifest)
        return manifest, hashed.digest


def unpack(source: Source, directory: Path, sha256: str | None = None) -> Manifest:
    """Make a state directory of an archive, or leave it as it was. `sha256`: of the archive, where that is known.

    What is unpacked is durable when this returns. Raises ArchiveError, also when the directory holds a state already,
    and OSError when it cannot be written.
    """
    if (directory / HISTORY).exists() or (directory / MODELS).exists():
        raise ArchiveError(f"{directory} holds the state of a federation already")
    unfinished, hashed = directory / UNFINISHED, _Hashed(source)
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / MODELS).mkdir(parents=True)
    try:
        manifest = _read(hashed, lambda member: (unfinished / member.name).open("xb"))
        if sha256 is not None and hashed.digest != sha256:
            raise ArchiveError(f"its SHA-256 is {hashed.digest}, and {sha256} was expected")
        check_history(unfinished / HISTORY, manifest)
        sync(unfinished / MODELS)
        for name in (MODELS, HISTORY):
            (unfinished / name).rename(directory / name)
        sync(directory)
    except BaseException:
        (directory / HISTORY).unlink(missing_ok=True)
        for folder in (directory / MODELS, unfinished):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    unfinished.rmdir()
    sync(directory)
    return manifest


class _Hashed:
    """A source, and the SHA-256 of what was read of it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def exactly(self, size: int) -> bytes:
        """Raises ArchiveError when there is less."""
        parts = []
        while size:
            part = self._source.read(size)
            if not part:
                raise ArchiveError("it ends early: is a part of it missing?")
            self._digest.update(part)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def nothing(self, size: int) -> None:
        """What fills a block up. Raises ArchiveError when it is not empty."""
        if any(self.exactly(size)):
            raise ArchiveError(_MORE)

    def at_end(self) -> bool:
        return not self._source.read(1)


def _read(source: _Hashed, target: Callable[[Member], BinaryIO | None]) -> Manifest:
    """Check everything, and write members to their targets."""
    size = _header(source, MANIFEST)
    if size > MAX_MANIFEST_BYTES:
        raise ArchiveError(f"its manifest has {size} bytes, and {MAX_MANIFEST_BYTES} are the most")
    manifest = Manifest.parse(source.exactly(size))
    source.nothing(padded(size) - size)
    for member in manifest.members:
        if _header(source, member.name) != member.bytes:
            raise ArchiveError(f"{member.name} has another size than its manifest says")
        _copy(source, member, target(member))
        source.nothing(padded(member.bytes) - member.bytes)
    source.nothing(2 * tarfile.BLOCKSIZE)
    if not source.at_end():
        raise ArchiveError(_MORE)
    return manifest


def _header(source: _Hashed, name: str) -> int:
    """The size of the member that comes next, which has to be a plain file of this name."""
    block = source.exactly(tarfile.BLOCKSIZE)
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{name} was expected, and there is no tar header: it is damaged, or no archive") from error
    if info.type != tarfile.REGTYPE or info.name != name or info.size < 0:
        raise ArchiveError(f"{name} was expected, and {info.name!r} is there")
    return info.size


def _copy(source: _Hashed, member: Member, file: BinaryIO | None) -> None:
    digest, left = hashlib.sha256(), member.bytes
    with ExitStack() as closing:
        if file is not None:
            closing.enter_context(file)
        while left:
            piece = source.exactly(min(PIECE_BYTES, left))
            left -= len(piece)
            digest.update(piece)
            if file is not None:
                file.write(piece)
        if digest.hexdigest() != member.sha256:
            raise ArchiveError(f"{member.name} is damaged: its SHA-256 is {digest.hexdigest()}, not {member.sha256}")
        if file is not None:
            file.flush()
            os.fsync(file.fileno())

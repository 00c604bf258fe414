"""An archive as a stream of bytes, of a size that is known before."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from metisfl.archive.manifest import MANIFEST, ArchiveError, Manifest

PIECE_BYTES = 1 << 20


def archive_bytes(manifest: Manifest) -> int:
    """The size of the archive with this manifest."""
    sizes = [len(_text(manifest)), *(member.bytes for member in manifest.members)]
    return sum(tarfile.BLOCKSIZE + padded(size) for size in sizes) + 2 * tarfile.BLOCKSIZE


def write(manifest: Manifest, files: Sequence[BinaryIO]) -> Iterator[bytes]:
    """The archive in pieces. `files`: the contents of the manifest's members, in their order.

    Raises ArchiveError when a file ends before its size, OSError when it cannot be read.
    """
    text, moment = _text(manifest), int(manifest.created.timestamp())
    yield _header(MANIFEST, len(text), moment)
    yield from _content(MANIFEST, io.BytesIO(text), len(text))
    for member, file in zip(manifest.members, files, strict=True):
        yield _header(member.name, member.bytes, moment)
        yield from _content(member.name, file, member.bytes)
    yield bytes(2 * tarfile.BLOCKSIZE)


def padded(size: int) -> int:
    """Of a member's content: tar is made of blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _text(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=2).encode() + b"\n"


def _header(name: str, size: int, moment: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, moment, 0o600
    # GNU's form has room for files of 8 GiB and more in a single block.
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _content(name: str, file: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = file.read(min(PIECE_BYTES, left))
        if not piece:
            raise ArchiveError(f"{name} ends {left} bytes early")
        left -= len(piece)
        yield piece
    yield bytes(padded(size) - size)

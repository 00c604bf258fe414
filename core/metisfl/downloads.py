"""Save a model that arrives in pieces: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from metisfl.files import replacing

SHA256_HEADER = "X-Metisfl-Sha256"


class DownloadError(Exception):
    """What arrived is not what was sent."""


def save(chunks: Iterable[bytes], target: Path, sha256: str | None) -> int:
    """Write `chunks` beside `target`, then put the file in its place; returns its size in bytes.

    Raises DownloadError when the SHA-256 differs from the one announced (None: none was), OSError when the file cannot
    be written; `target` is then as it was.
    """
    digest, size = hashlib.sha256(), 0
    with replacing(target) as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        if sha256 is not None and digest.hexdigest() != sha256.lower():
            raise DownloadError(f"the model arrived damaged: its SHA-256 is {digest.hexdigest()}, not {sha256}")
    return size

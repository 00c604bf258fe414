"""Save a model that arrives in pieces: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

SHA256_HEADER = "X-Metisfl-Sha256"


class DownloadError(Exception):
    """What arrived is not what was sent."""


def save(chunks: Iterable[bytes], target: Path, sha256: str | None) -> int:
    """Write `chunks` beside `target`, then put the file in its place; returns its size in bytes.

    Raises DownloadError when the SHA-256 differs from the one announced (None: none was), OSError when the file cannot
    be written; `target` is then as it was.
    """
    digest, size = hashlib.sha256(), 0
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if sha256 is not None and digest.hexdigest() != sha256.lower():
            raise DownloadError(f"the model arrived damaged: its SHA-256 is {digest.hexdigest()}, not {sha256}")
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return size


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

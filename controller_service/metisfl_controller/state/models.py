"""Model files: safetensors, written so that a file under its final name is always whole."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from metisfl.wire.layout import Buffer, Layout, LayoutError


def file_name(version: int) -> str:
    return f"v{version:06}.safetensors"


def write_model(path: Path, layout: Layout, model: Buffer, metadata: dict[str, str]) -> tuple[str, int]:
    """Write, fsync and rename into place; returns (SHA-256 of the file, its size in bytes). Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    views: dict[str, NDArray[np.generic]] = layout.views(model)
    save_file(views, unfinished, metadata=metadata)
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
    unfinished.replace(path)
    sync_directory(path.parent)
    return digest, size


def read_model(path: Path, layout: Layout, sha256: str) -> Buffer:
    """The model as a flat buffer. Raises OSError or ValueError: missing, damaged, or of another layout."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(f"{path.name} is damaged: its SHA-256 is {found}, and {sha256} was committed")
    try:
        return layout.pack(load_file(path))
    except (SafetensorError, LayoutError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def sync_directory(directory: Path) -> None:
    """Make renames in it durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

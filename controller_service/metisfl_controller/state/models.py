"""Model files: safetensors, written so that a file under its final name is always whole.

Written and read in pieces straight from and into the flat buffer (docs/decisions/0013-model-files.md): neither way
holds a second copy of the model. The format: 8 bytes of the header's length, a JSON header that gives each tensor's
dtype, shape and place, and the tensors' bytes without gaps (github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metisfl.durability import sync
from metisfl.wire.layout import Buffer, Layout, aligned_zeros
from metisfl_controller.aggregation.mapped import WRITTEN_BACK_BYTES, release

Allocate: TypeAlias = Callable[[int], Buffer]
"""Makes a zeroed, aligned buffer of so many bytes."""

_DTYPES = {
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "bool": "BOOL",
}

RESERVED_NAME = "__metadata__"
"""What no tensor may be called: the header keeps something else under this key."""

_MAX_HEADER_BYTES = 100_000_000
"""The format's own bound."""

_PIECE_BYTES = 16 << 20

_LARGE_BYTES = 256 << 20
"""Larger files are synced as they grow: so many dirty pages could fill a container's memory."""


def write_model(path: Path, layout: Layout, model: Buffer, metadata: dict[str, str]) -> tuple[str, int]:
    """Write, fsync and rename into place; returns (SHA-256 of the file, its size in bytes). Raises OSError."""
    return write_tensors(path, layout.views(model), metadata)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> tuple[str, int]:
    """The same for contiguous arrays of any of the dtypes that models have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    digest, size, synced = hashlib.sha256(), 0, 0
    large = sum(tensor.nbytes for tensor in tensors.values()) > _LARGE_BYTES
    with unfinished.open("wb") as file:
        for piece in _content(tensors, metadata):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            if large and size - synced >= WRITTEN_BACK_BYTES:
                file.flush()
                os.fdatasync(file.fileno())
                synced = size
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync(path.parent)
    return digest.hexdigest(), size


def read_model(path: Path, layout: Layout, sha256: str, allocate: Allocate = aligned_zeros) -> Buffer:
    """The model as a flat buffer. Raises OSError or ValueError: missing, damaged, or of another layout."""
    with _undamaged(path, sha256) as file:
        return _read(file, layout, allocate)


def read_buffers(path: Path, sha256: str, allocate: Allocate = aligned_zeros) -> dict[str, Buffer]:
    """What `write_tensors` wrote of flat byte arrays. Raises OSError or ValueError: missing, damaged, or of another
    kind."""
    with _undamaged(path, sha256) as file:
        header, data = _header(file)
        buffers = {}
        for name, found in header.items():
            if found["dtype"] != "U8" or len(found["shape"]) != 1:
                raise ValueError(f"'{name}' is {found['dtype']}{found['shape']}, and bytes were expected")
            buffers[name] = allocate(found["shape"][0])
            _fill(file, name, buffers[name], data + found["data_offsets"][0])
        return buffers


def read_metadata(path: Path) -> dict[str, str]:
    """What was written beside the tensors. Raises OSError or ValueError: missing, or no such file."""
    with path.open("rb") as file:
        found: dict[str, str] = _whole_header(file)[0].get(RESERVED_NAME, {})
        return found


@contextmanager
def _undamaged(path: Path, sha256: str) -> Iterator[BufferedReader]:
    """A file as it was written; whatever is wrong with it is said with its name. Raises OSError or ValueError."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ValueError(f"{path.name} is damaged: its SHA-256 is {found}, and {sha256} was committed")
        try:
            yield file
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error


def _content(tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> Iterator[memoryview]:
    """The file, piece by piece: a header, then views of the tensors."""
    # Widest elements first, so that every tensor is aligned for readers that map the file.
    names = sorted(tensors, key=lambda name: -tensors[name].itemsize)
    header: dict[str, Any] = {RESERVED_NAME: metadata}
    start = 0
    for name in names:
        stop = start + tensors[name].nbytes
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype.name],
            "shape": tensors[name].shape,
            "data_offsets": (start, stop),
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name in names:
        for piece in _pieces(tensors[name]):
            yield piece.data
            release(piece, written=False)


def _read(file: BufferedReader, layout: Layout, allocate: Allocate) -> Buffer:
    header, data = _header(file)
    names = {tensor.name for tensor in layout.tensors}
    problems = [f"tensor '{name}' is not part of the model" for name in header if name not in names]
    for tensor in layout.tensors:
        found = header.get(tensor.name)
        if found is None:
            problems.append(f"tensor '{tensor.name}' is missing")
        elif (found["dtype"], tuple(found["shape"])) != (_DTYPES[tensor.dtype], tensor.shape):
            problems.append(f"tensor '{tensor.name}' is {found['dtype']}{found['shape']}, expected {tensor}")
    if problems:
        raise ValueError("; ".join(problems[:5]))
    model = allocate(layout.nbytes)
    for name, view in layout.views(model).items():
        _fill(file, name, view, data + header[name]["data_offsets"][0])
    return model


def _fill(file: BufferedReader, name: str, tensor: NDArray[np.generic], start: int) -> None:
    """Read a tensor's bytes, which begin at `start`."""
    file.seek(start)
    for piece in _pieces(tensor):
        if file.readinto(piece.data) != piece.size:
            raise ValueError(f"the file ends within tensor '{name}'")
        release(piece, written=True)


def _header(file: BufferedReader) -> tuple[dict[str, Any], int]:
    """The tensors by name, and where their bytes begin."""
    header, data = _whole_header(file)
    header.pop(RESERVED_NAME, None)
    return header, data


def _whole_header(file: BufferedReader) -> tuple[dict[str, Any], int]:
    """With the metadata."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes is no safetensors header")
    return json.loads(file.read(length)), 8 + length


def _pieces(tensor: NDArray[np.generic]) -> Iterator[Buffer]:
    """A tensor's bytes as views of at most _PIECE_BYTES."""
    content: Buffer = tensor.reshape(-1).view(np.uint8)
    for start in range(0, content.size, _PIECE_BYTES):
        yield content[start : start + _PIECE_BYTES]

"""Memory of model size that is a file: for what the memory budget has no room for.

The bytes are ordinary arrays to whoever uses them. What differs is whose memory they are: pages of a file can be
written back and dropped, so the process holds no more of them than it touches at a time. Whoever passes over such
arrays calls `release` behind itself; without it the kernel would find out by itself which pages are not needed any
more, and in a memory-limited container that is late.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.layout import Buffer

PREFIX = "upload-"
"""Names of the files while they have one."""

WRITTEN_BACK_BYTES = 32 << 20
"""A large file is synced each time this much has been written: dirty pages cannot be dropped, and a container whose
limit they fill is killed."""


_TILE = 1 << 24
"""Elements after which memory that is a file is let go, 128 MiB of float64."""

Array = NDArray[np.generic]


class _Mapping(mmap.mmap):
    """A mapped file that knows where it lies."""

    address: int


class MappedFile:
    """An unlinked file of `nbytes` bytes; `buffer` is its content, zeroed. `close` ends writing, and the space returns
    once nobody refers to the buffer any more."""

    def __init__(self, directory: Path, nbytes: int) -> None:
        """Raises OSError when the disk has no room."""
        descriptor, name = tempfile.mkstemp(prefix=PREFIX, dir=directory)
        try:
            # Unlinked at once: the space returns however this process ends.
            Path(name).unlink()
            # Reserved up front: running out of disk later would be a SIGBUS instead of an error.
            size = max(1, nbytes)  # nothing of no size can be mapped
            os.posix_fallocate(descriptor, 0, size)
            mapping = _Mapping(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor: int | None = descriptor
        self._unsynced = 0
        whole = np.frombuffer(mapping, dtype=np.uint8)
        mapping.address = whole.ctypes.data
        self.buffer: Buffer = whole[:nbytes]

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes in place; blocks while the disk is busy. Raises OSError."""
        assert self._descriptor is not None, "write after close"
        while data:
            # Through the descriptor and not the mapping: a page fault that waits for the disk would hold the
            # interpreter's lock.
            piece = os.pwrite(self._descriptor, data[:WRITTEN_BACK_BYTES], offset)
            data, offset = data[piece:], offset + piece
            self._unsynced += piece
            if self._unsynced >= WRITTEN_BACK_BYTES:
                os.fdatasync(self._descriptor)
                self._unsynced = 0

    def close(self) -> None:
        """Harmless when repeated."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def mapped_zeros(directory: Path, nbytes: int) -> Buffer:
    """Zeroed bytes in a file that nobody else sees. Raises OSError when the disk has no room."""
    file = MappedFile(directory, nbytes)
    file.close()
    return file.buffer


def mapped_file(path: Path, nbytes: int) -> Buffer:
    """A file's content, for reading. Raises OSError, or ValueError when it has another size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if (size := os.fstat(descriptor).st_size) != nbytes:
            raise ValueError(f"{path.name} has {size} bytes, and {nbytes} were written")
        if not nbytes:
            return np.zeros(0, np.uint8)
        mapping = _Mapping(descriptor, nbytes, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    whole = np.frombuffer(mapping, dtype=np.uint8)
    mapping.address = whole.ctypes.data
    return whole


def is_mapped(array: Array) -> bool:
    """Whether an array lies in a file of this module."""
    return _mapping_of(array) is not None


def release(part: Array, *, written: bool) -> None:
    """Tell that a contiguous part of an array is not needed for now; nothing happens to ordinary memory.

    The content stays, and may be used again at the price of reading it from disk. `written` parts are written back
    first, which blocks until the disk has them. Raises OSError when it cannot.
    """
    mapping = _mapping_of(part)
    if mapping is None or not part.nbytes:
        return
    start = part.ctypes.data - mapping.address
    aligned = start - start % mmap.PAGESIZE
    length = min(start + part.nbytes, len(mapping)) - aligned
    if written:
        mapping.flush(aligned, length)
    mapping.madvise(mmap.MADV_DONTNEED, aligned, length)


def tiles(
    elements: int, *, read: Iterable[Array | None] = (), written: Iterable[Array] = (), tile: int | None = None
) -> Iterator[tuple[int, int]]:
    """Ranges of elements to pass over one after the other; what lies behind is released.

    None among those read stands for nothing. Arrays have that many elements, or as many in proportion: scales of
    blocks, and indices of TopK, which are spread about evenly (letting go too early costs reading again, no more).
    Without a `tile`, a number of elements, everything is one range unless an array is a file. Raises what `release`
    raises.
    """
    read_files = [array for array in read if array is not None and is_mapped(array)]
    written_files = [array for array in written if is_mapped(array)]
    if tile is None:
        tile = _TILE if read_files or written_files else elements
    for start in range(0, elements, max(1, tile)):
        stop = min(elements, start + tile)
        yield start, stop
        for array in written_files:
            release(_part(array, start, stop, elements), written=True)
        for array in read_files:
            release(_part(array, start, stop, elements), written=False)


def _part(array: Array, start: int, stop: int, elements: int) -> Array:
    return array[start * array.size // elements : stop * array.size // elements]


def _mapping_of(array: Array) -> _Mapping | None:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, _Mapping) else None

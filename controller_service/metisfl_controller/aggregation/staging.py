"""Where uploads land: a few slots in memory, and files on disk for everything beyond them.

Slots bound memory, not concurrency: a controller with four slots of a model each takes any number of uploads at once,
because the fifth goes to a file that is mapped into memory and written back by the kernel as it likes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metisfl.wire.layout import Buffer, aligned_zeros


@dataclass(frozen=True, eq=False)
class Slot:
    """Room for one model: `buffer` has the layout's size. After `release` it must not be used any more."""

    buffer: Buffer
    in_memory: bool
    release: Callable[[], None]


class StagingPool:
    """Slots of `nbytes` each: up to `memory_slots` in memory, reused, and spill files in `directory` beyond that.

    Not thread-safe by itself: acquire and release from one thread (the event loop).
    """

    def __init__(self, directory: Path, nbytes: int, memory_slots: int = 4) -> None:
        self._directory = directory
        self.nbytes = nbytes
        self._unused = memory_slots
        self._free: list[Buffer] = []
        directory.mkdir(parents=True, exist_ok=True)
        for left_over in directory.glob("upload-*"):
            left_over.unlink()

    def acquire(self) -> Slot:
        """A slot at once, in memory if one is free. Raises OSError when the disk has no room for a spill file."""
        buffer = self._free.pop() if self._free else self._from_memory()
        if buffer is None:
            return self._spill()
        return Slot(buffer, True, lambda: self._free.append(buffer))

    def _from_memory(self) -> Buffer | None:
        if not self._unused:
            return None
        try:
            buffer = aligned_zeros(self.nbytes)
        except MemoryError:
            return None
        self._unused -= 1
        return buffer

    def _spill(self) -> Slot:
        descriptor, name = tempfile.mkstemp(prefix="upload-", dir=self._directory)
        try:
            # Unlinked at once: the space returns however this process ends.
            Path(name).unlink()
            # Reserved up front: running out of disk later would be a SIGBUS instead of an error.
            size = max(1, self.nbytes)  # nothing of no size can be mapped
            os.posix_fallocate(descriptor, 0, size)
            mapped = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        return Slot(np.frombuffer(mapped, dtype=np.uint8)[: self.nbytes], False, lambda: None)

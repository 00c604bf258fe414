"""The chunk messages of an encoded model: made once and kept for all learners, or made from a mapped file for each.

What does not fit the memory budget lies in a mapped file, and its messages would not fit either. There the disk, or its
cache, is read for each learner, a few chunks at a time.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass

from metisfl.wire import frames
from metisfl.wire.compression import Zstd
from metisfl.wire.layout import Buffer
from metisfl.wire.limits import CHUNK_BYTES
from metisfl_controller.aggregation.mapped import is_mapped, release

BATCH = 4
"""Chunks made at a time."""


@dataclass(frozen=True)
class Chunk:
    """One message of a download."""

    message: bytes
    payload: int
    """Bytes of the model in it, as they travel."""

    checksum: int


class Chunks(ABC):
    """The chunks of one section, the `section`-th of its transfer, of `nbytes` bytes."""

    def __init__(self, section: int, nbytes: int) -> None:
        self.section = section
        self.count = -(-nbytes // CHUNK_BYTES)

    @abstractmethod
    def stream(self, start: int) -> AsyncIterator[Chunk]:
        """The chunks from byte `start` on, which is a border of chunks, each as soon as it is there."""

    @abstractmethod
    async def checksum(self) -> int:
        """The section's checksum."""


class KeptChunks(Chunks):
    """All chunks in memory. A thread makes them; `content` is let go of once it has."""

    def __init__(self, section: int, content: Buffer, packer: Zstd | None) -> None:
        super().__init__(section, content.size)
        self._chunks: list[Chunk] = []
        self._more = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._made = asyncio.ensure_future(asyncio.to_thread(self._make, content, packer))
        self._made.add_done_callback(lambda _: self._more.set())

    async def stream(self, start: int) -> AsyncIterator[Chunk]:
        number = -(-start // CHUNK_BYTES)
        while number < self.count:
            while number >= len(self._chunks):
                await self._next()
            yield self._chunks[number]
            number += 1

    async def checksum(self) -> int:
        while len(self._chunks) < self.count:
            await self._next()
        return frames.combined_checksum(chunk.checksum for chunk in self._chunks)

    async def _next(self) -> None:
        """Wait for more chunks. Raises what went wrong while they were made."""
        if self._made.done():
            self._made.result()
        await self._more.wait()

    def _make(self, content: Buffer, packer: Zstd | None) -> None:
        for first in range(0, self.count, BATCH):
            batch = _make(self.section, content, first, packer)
            self._loop.call_soon_threadsafe(self._add, batch)

    def _add(self, batch: list[Chunk]) -> None:
        self._chunks += batch
        more, self._more = self._more, asyncio.Event()
        more.set()


class MappedChunks(Chunks):
    """Chunks of a section in a mapped file."""

    def __init__(self, section: int, content: Buffer, packer: Zstd | None) -> None:
        super().__init__(section, content.size)
        self._content = content
        self._packer = packer
        self._checksums: dict[int, int] = {}
        """Of the chunks that were made before, by number."""

    async def stream(self, start: int) -> AsyncIterator[Chunk]:
        for first in range(-(-start // CHUNK_BYTES), self.count, BATCH):
            for number, chunk in enumerate(await asyncio.to_thread(self._read, first), first):
                self._checksums[number] = chunk.checksum
                yield chunk

    async def checksum(self) -> int:
        for number in range(0, self.count, BATCH):
            if not all(each in self._checksums for each in range(number, min(self.count, number + BATCH))):
                chunks = await asyncio.to_thread(self._read, number)
                self._checksums |= {at: chunk.checksum for at, chunk in enumerate(chunks, number)}
        return frames.combined_checksum(self._checksums[number] for number in range(self.count))

    def _read(self, first: int) -> list[Chunk]:
        chunks = _make(self.section, self._content, first, self._packer)
        start = first * CHUNK_BYTES
        release(self._content[start : start + len(chunks) * CHUNK_BYTES], written=False)
        return chunks


def chunks_of(section: int, content: Buffer, packer: Zstd | None = None) -> Chunks:
    """The chunks of an encoded section, packed if there is a packer. Call it on an event loop."""
    make = MappedChunks if is_mapped(content) else KeptChunks
    return make(section, content, packer)


def _make(section: int, content: Buffer, first: int, packer: Zstd | None) -> list[Chunk]:
    """BATCH chunks from number `first` on, or what is left."""
    chunks = []
    for offset in range(first * CHUNK_BYTES, min(content.size, (first + BATCH) * CHUNK_BYTES), CHUNK_BYTES):
        data = content[offset : offset + CHUNK_BYTES].data
        checksum = frames.checksum(data)
        packed = packer.pack(data) if packer is not None else None
        payload: memoryview | bytes = data if packed is None else packed
        head = frames.chunk_head(section, offset, checksum, len(payload), packed is not None)
        chunks.append(Chunk(b"".join((head, payload)), len(payload), checksum))
    return chunks

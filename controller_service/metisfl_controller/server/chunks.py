"""The chunk messages of an encoded model: made once and kept for all learners, or made from a mapped file for each.

What does not fit the memory budget lies in a mapped file, and its messages would not fit either. There the disk, or its
cache, is read for each learner, a few chunks at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

from metisfl.wire import frames
from metisfl.wire.layout import Buffer
from metisfl.wire.limits import CHUNK_BYTES
from metisfl_controller.aggregation.mapped import is_mapped, release

READ_BYTES = 4 * CHUNK_BYTES
"""What is read of a mapped file at a time."""


@dataclass(frozen=True)
class KeptChunks:
    """All messages of one section, in memory."""

    messages: list[bytes]
    checksum: int

    async def stream(self, start: int) -> AsyncIterator[bytes]:
        """The messages from byte `start` on, which is a border of chunks."""
        for message in self.messages[-(-start // CHUNK_BYTES) :]:
            yield message


@dataclass(frozen=True)
class MappedChunks:
    """A section in a mapped file."""

    content: Buffer
    checksum: int

    async def stream(self, start: int) -> AsyncIterator[bytes]:
        """The messages from byte `start` on, which is a border of chunks."""
        for position in range(start, self.content.size, READ_BYTES):
            for message in await asyncio.to_thread(self._encode, position):
                yield message

    def _encode(self, start: int) -> list[bytes]:
        stop = min(start + READ_BYTES, self.content.size)
        messages = list(frames.encode_section(0, self.content[:stop].data, start))
        release(self.content[start:stop], written=False)
        return messages


Chunks: TypeAlias = KeptChunks | MappedChunks


def chunks_of(content: Buffer) -> Chunks:
    """The messages of an encoded model; takes as long as reading all of it."""
    checksum = frames.section_checksum(content.data)
    if is_mapped(content):
        release(content, written=False)
        return MappedChunks(content, checksum)
    return KeptChunks(list(frames.encode_section(0, content.data)), checksum)

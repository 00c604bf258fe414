"""Follows the chunks of a transfer as they arrive."""

from __future__ import annotations

import xxhash

from metisfl.proto.v1 import model_pb2
from metisfl.wire.frames import ChunkFrame, FrameError
from metisfl.wire.limits import CHUNK_BYTES


class Reassembly:
    """The chunks of sections of `sizes` bytes come in order: those of the first section, then those of the next."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.offsets = [0] * len(sizes)
        """Bytes that have arrived of each section; a broken transfer goes on here."""
        self._blocks = [xxhash.xxh3_64() for _ in sizes]

    @property
    def received(self) -> int:
        """Bytes that have arrived."""
        return sum(self.offsets)

    @property
    def nbytes(self) -> int:
        return sum(self.sizes)

    @property
    def section(self) -> int:
        """The first section of which something is missing; the last one when all is there."""
        for number, (offset, nbytes) in enumerate(zip(self.offsets, self.sizes, strict=True)):
            if offset < nbytes:
                return number
        return len(self.sizes) - 1

    @property
    def offset(self) -> int:
        """Bytes that have arrived of that section."""
        return self.offsets[self.section]

    def take(self, chunk: ChunkFrame) -> None:
        """Count a chunk in. Raises FrameError when it is not the block that follows."""
        section, offset = self.section, self.offset
        size = min(CHUNK_BYTES, self.sizes[section] - offset)
        if (chunk.section, chunk.offset, len(chunk.data)) != (section, offset, size):
            raise FrameError(
                f"a chunk of {len(chunk.data)} bytes at {chunk.offset} of section {chunk.section} came where {size} at "
                f"{offset} of section {section} were next"
            )
        self._blocks[section].update(chunk.checksum.to_bytes(8, "little"))
        self.offsets[section] += size

    def finish(self, message: model_pb2.Finish) -> None:
        """Raises FrameError when bytes are missing, or when a section's checksum differs and all must come again."""
        if self.received != self.nbytes:
            raise FrameError(f"the transfer ended after {self.received} of {self.nbytes} bytes")
        if list(message.section_checksums) != [blocks.intdigest() for blocks in self._blocks]:
            self.start_again()
            raise FrameError("a section's checksum does not fit what arrived")

    def start_again(self) -> None:
        """Forget what has arrived."""
        for section, blocks in enumerate(self._blocks):
            self.offsets[section] = 0
            blocks.reset()

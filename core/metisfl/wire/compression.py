"""Optional compression of chunks with Zstandard: each by itself, so that resuming by offset stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import zstandard

from metisfl.proto.v1 import model_pb2
from metisfl.wire.limits import CHUNK_BYTES


class Compression(StrEnum):
    """The values of `spec.transport.compression.type`."""

    NONE = "None"
    ZSTD = "Zstd"

    @property
    def number(self) -> model_pb2.Compression.ValueType:
        """The compression in messages."""
        return model_pb2.COMPRESSION_ZSTD if self is Compression.ZSTD else model_pb2.COMPRESSION_NONE


class CompressionError(ValueError):
    """Bytes that are no compressed chunk."""


@dataclass(frozen=True)
class Zstd:
    """Packs chunks. `level`: 1 … 19, more takes longer and packs tighter."""

    level: int

    def pack(self, data: memoryview) -> bytes | None:
        """`data` as one frame that says its size, or None when it would not get smaller."""
        packed = zstandard.ZstdCompressor(level=self.level, write_checksum=False).compress(data)
        return packed if len(packed) < len(data) else None


def unpack(data: memoryview) -> memoryview:
    """The block that `Zstd.pack` packed. Raises CompressionError for anything else, and before taking memory for what
    says that it holds more than a chunk."""
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= CHUNK_BYTES:
            raise CompressionError(f"a compressed chunk must say its size, up to {CHUNK_BYTES} bytes, and says {size}")
        unpacker = zstandard.ZstdDecompressor(max_window_size=CHUNK_BYTES)
        return memoryview(unpacker.decompress(data, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise CompressionError(f"not a compressed chunk: {error}") from error

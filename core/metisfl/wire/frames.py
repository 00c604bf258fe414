"""Messages of the two model streams, read and written without copying payloads through protobuf.

`UploadRequest` and `DownloadResponse` share one shape: header = 1, finish = 2, chunk = 3. A chunk is by far the most
frequent message and nearly all of it is payload, so it gets its own path: the payload is a view of the received
buffer, and a chunk that goes to many learners is serialised once and sent as the same bytes. What is on the wire stays
plain protobuf (encoding: protobuf.dev/programming-guides/encoding); any generated client can talk to it.

A section is cut into blocks of CHUNK_BYTES, the last one shorter, and each travels as one chunk. The checksum of the
whole is taken over the checksums of its blocks, so that no byte is hashed twice. Blocks may travel compressed, each by
itself: offsets and checksums are of what was packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import xxhash
from google.protobuf.message import DecodeError, Message

from metisfl.proto.v1 import model_pb2
from metisfl.wire.compression import CompressionError, Zstd, unpack
from metisfl.wire.limits import CHUNK_BYTES

M = TypeVar("M", bound=Message)

_CHUNK_TAG = 3 << 3 | 2  # field 3, length-delimited
_DATA_TAG = 15 << 3 | 2  # field 15 of Chunk, length-delimited


class FrameError(ValueError):
    """Bytes that are not a frame, or a chunk whose checksum does not fit its data.

    A decoder *returns* it: an exception inside a deserialiser would reach neither side as anything but "internal".
    """


@dataclass(frozen=True)
class ChunkFrame:
    """A received chunk; `data` is a view of the message it came in, or of what that was unpacked to."""

    section: int
    offset: int
    data: memoryview
    checksum: int
    packed: int | None = None
    """Bytes of the payload on the wire, when it was compressed."""

    @property
    def payload(self) -> int:
        """Bytes of the payload on the wire."""
        return len(self.data) if self.packed is None else self.packed


@dataclass(frozen=True)
class PackedChunk:
    """A received chunk that is still compressed; `data` is a view of the message it came in."""

    section: int
    offset: int
    data: memoryview
    checksum: int
    """Of what it is unpacked to."""

    def unpacked(self) -> ChunkFrame:
        """Takes milliseconds, so leave it to a thread. Raises FrameError."""
        try:
            data = unpack(self.data)
        except CompressionError as error:
            raise FrameError(f"not a chunk: {error}") from error
        return _checked(ChunkFrame(self.section, self.offset, data, self.checksum, len(self.data)))


Chunk: TypeAlias = ChunkFrame | PackedChunk


def checksum(data: bytes | memoryview) -> int:
    """XXH3-64 of a chunk's data."""
    return xxhash.xxh3_64_intdigest(data)


def section_checksum(content: memoryview) -> int:
    """A section's checksum from its content."""
    return combined_checksum(
        checksum(content[offset : offset + CHUNK_BYTES]) for offset in range(0, len(content), CHUNK_BYTES)
    )


def combined_checksum(checksums: Iterable[int]) -> int:
    """XXH3-64 of the checksums of a section's blocks, 8 bytes each, little-endian."""
    blocks = xxhash.xxh3_64()
    for each in checksums:
        blocks.update(each.to_bytes(8, "little"))
    return blocks.intdigest()


def is_border(offset: int, nbytes: int) -> bool:
    """Whether a section of `nbytes` bytes can be resumed at this offset: where a chunk begins, or the end."""
    return offset == nbytes or (offset < nbytes and offset % CHUNK_BYTES == 0)


def encode_chunk(section: int, offset: int, data: memoryview, packer: Zstd | None = None) -> bytes:
    """The whole stream message for one chunk; the one copy of the payload on its way out."""
    packed = packer.pack(data) if packer is not None else None
    head = chunk_head(section, offset, checksum(data), len(data) if packed is None else len(packed), packed is not None)
    return b"".join((head, data if packed is None else packed))


def chunk_head(section: int, offset: int, block_checksum: int, payload: int, packed: bool = False) -> bytes:
    """What goes before the payload in a chunk's message; `payload` is its size."""
    compression = model_pb2.COMPRESSION_ZSTD if packed else model_pb2.COMPRESSION_NONE
    chunk = model_pb2.Chunk(section=section, offset=offset, checksum=block_checksum, compression=compression)
    head = chunk.SerializeToString() + bytes((_DATA_TAG,)) + _varint(payload)
    return bytes((_CHUNK_TAG,)) + _varint(len(head) + payload) + head


def encode_section(section: int, content: memoryview, start: int = 0, packer: Zstd | None = None) -> Iterator[bytes]:
    """All chunk messages of an encoded section from byte `start` on, which is the border of a block or the end."""
    for offset in range(start, len(content), CHUNK_BYTES):
        yield encode_chunk(section, offset, content[offset : offset + CHUNK_BYTES], packer)


def decoder(message: type[M]) -> Callable[[bytes], M | Chunk | FrameError]:
    """A deserialiser for a stream message: chunks become ChunkFrame or PackedChunk, everything else the protobuf
    message, and malformed bytes or a chunk with a wrong checksum a FrameError."""

    def decode(wire: bytes) -> M | Chunk | FrameError:
        try:
            if wire[:1] == bytes((_CHUNK_TAG,)):
                return _decode_chunk(memoryview(wire))
            parsed = message.FromString(wire)
            if parsed.HasField("chunk"):
                # It would come back without its checksum compared; no serialiser writes a chunk like this.
                raise FrameError("a chunk must be alone in its message, behind a tag of one byte")
            return parsed
        except FrameError as error:
            return error
        except DecodeError as error:
            return FrameError(f"not a {message.DESCRIPTOR.name}: {error}")

    return decode


def encode(message: Message | bytes) -> bytes:
    """Serialiser of both streams: chunks come ready as bytes, the rest is protobuf."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def _decode_chunk(wire: memoryview) -> Chunk:
    try:
        length, start = _read_varint(wire, 1)
        body = wire[start:]
        if len(body) != length:
            raise FrameError(f"a chunk of {length} bytes came as {len(body)}")
        section, offset, expected, compression, data = _chunk_fields(body)
    except (IndexError, DecodeError) as error:
        raise FrameError(f"not a chunk: {error}") from error
    if compression == model_pb2.COMPRESSION_ZSTD:
        return PackedChunk(section, offset, data, expected)
    if compression:
        raise FrameError(f"a chunk has compression {compression}, which is unknown")
    return _checked(ChunkFrame(section, offset, data, expected))


def _checked(chunk: ChunkFrame) -> ChunkFrame:
    if checksum(chunk.data) != chunk.checksum:
        raise FrameError(f"the chunk at offset {chunk.offset} of section {chunk.section} does not fit its checksum")
    return chunk


def _chunk_fields(body: memoryview) -> tuple[int, int, int, int, memoryview]:
    """Fields of a Chunk. Walks the wire format up to `data`, which every serialiser writes last."""
    section = offset = expected = compression = position = 0
    data = body[:0]
    while position < len(body):
        tag, position = _read_varint(body, position)
        if tag == 1 << 3:
            section, position = _read_varint(body, position)
        elif tag == 2 << 3:
            offset, position = _read_varint(body, position)
        elif tag == 3 << 3 | 1:
            if position + 8 > len(body):
                raise IndexError("checksum cut off")
            expected = int.from_bytes(body[position : position + 8], "little")
            position += 8
        elif tag == 4 << 3:
            compression, position = _read_varint(body, position)
        elif tag == _DATA_TAG:
            size, position = _read_varint(body, position)
            if position + size > len(body):
                raise IndexError("data cut off")
            data = body[position : position + size]
            position += size
        else:
            raise FrameError(f"unknown field with tag {tag} in a chunk")
    return section, offset, expected, compression, data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(buffer: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte: int = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise FrameError("a varint of more than ten bytes")

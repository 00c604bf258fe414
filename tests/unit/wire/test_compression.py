"""Chunks that travel compressed: whole again, never larger, and no bomb."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.compression import Zstd
from metisfl.wire.frames import ChunkFrame, FrameError, PackedChunk
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.reassembly import Reassembly

read = frames.decoder(pb.UploadRequest)


def decode(wire: bytes) -> pb.UploadRequest | ChunkFrame | FrameError:
    """What a message holds, unpacked."""
    try:
        message = read(wire)
        return message.unpacked() if isinstance(message, PackedChunk) else message
    except FrameError as error:
        return error


def chunk_of(payload: bytes, block: bytes = b"") -> bytes:
    """A message whose chunk says that `payload` is `block` compressed."""
    chunk = model_pb2.Chunk(checksum=frames.checksum(block), compression=model_pb2.COMPRESSION_ZSTD, data=payload)
    return pb.UploadRequest(chunk=chunk).SerializeToString()


@given(
    st.one_of(st.binary(max_size=300), st.binary(min_size=1, max_size=4).map(lambda unit: unit * 20_000)),
    st.integers(1, 19),
)
def test_a_chunk_arrives_as_it_was_and_never_takes_more_for_it(block: bytes, level: int) -> None:
    plain = frames.encode_chunk(0, 64, memoryview(block))
    wire = frames.encode_chunk(0, 64, memoryview(block), Zstd(level))
    frame = decode(wire)
    assert isinstance(frame, ChunkFrame)
    assert (frame.offset, bytes(frame.data), frame.checksum) == (64, block, frames.checksum(memoryview(block)))
    assert frame.payload <= len(block)
    assert len(wire) <= len(plain)


def test_any_generated_client_can_read_it() -> None:
    block = bytes(5000)
    chunk = pb.UploadRequest.FromString(frames.encode_chunk(0, 0, memoryview(block), Zstd(3))).chunk
    assert chunk.compression == model_pb2.COMPRESSION_ZSTD
    assert zstandard.decompress(chunk.data) == block


def test_what_does_not_get_smaller_is_sent_as_it_is() -> None:
    noise = memoryview(zstandard.compress(bytes(range(256))))
    assert frames.encode_chunk(0, 0, noise, Zstd(19)) == frames.encode_chunk(0, 0, noise)


@pytest.mark.parametrize("level", [1, 19])
def test_a_section_is_resumed_by_its_own_bytes(level: int) -> None:
    content = memoryview(b"abcd" * (CHUNK_BYTES // 2 + 1))
    arriving, taken = Reassembly(len(content)), bytearray()
    for start in (0, CHUNK_BYTES, 2 * CHUNK_BYTES):
        frame = decode(next(frames.encode_section(0, content, start, Zstd(level))))
        assert isinstance(frame, ChunkFrame)
        arriving.take(frame)
        taken += frame.data
    arriving.finish(model_pb2.Finish(section_checksums=[frames.section_checksum(content)]))
    assert taken == content


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (zstandard.compress(bytes(CHUNK_BYTES + 1)), "up to 1048576 bytes, and says 1048577"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100)), "must say its size"),
        (zstandard.compress(bytes(100)) + b"more", "not a compressed chunk"),
        (zstandard.compress(bytes(100))[:-1], "not a compressed chunk"),
        (b"no frame at all", "not a compressed chunk"),
        (b"", "not a compressed chunk"),
        (zstandard.compress(bytes(99)), "does not fit its checksum"),
    ],
)
def test_bombs_and_what_is_no_frame_are_refused(payload: bytes, complaint: str) -> None:
    error = decode(chunk_of(payload, bytes(100)))
    assert isinstance(error, FrameError)
    assert complaint in str(error)


def test_a_frame_that_claims_terabytes_takes_no_memory() -> None:
    # A frame's header: magic, descriptor "eight bytes of content size, single segment", the size.
    claim = (0xFD2FB528).to_bytes(4, "little") + b"\xe0" + (1 << 44).to_bytes(8, "little")
    error = decode(chunk_of(claim))
    assert isinstance(error, FrameError)
    assert str(1 << 44) in str(error)


def test_a_message_is_read_without_unpacking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC reads messages on the event loop."""
    wire = frames.encode_chunk(1, 64, memoryview(bytes(5000)), Zstd(3))
    monkeypatch.setattr(frames, "unpack", None)
    chunk = read(wire)
    assert isinstance(chunk, PackedChunk)
    assert (chunk.section, chunk.offset, chunk.checksum) == (1, 64, frames.checksum(bytes(5000)))

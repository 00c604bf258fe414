"""The hand-written frame codec against the generated protobuf classes."""

from __future__ import annotations

import itertools
import struct

import pytest
import xxhash
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.frames import Chunk, ChunkFrame, FrameError, PackedChunk
from metisfl.wire.limits import CHUNK_BYTES, MAX_MESSAGE_BYTES
from metisfl.wire.reassembly import Reassembly

decode_upload = frames.decoder(pb.UploadRequest)
decode_download = frames.decoder(pb.DownloadResponse)

sections = st.integers(0, 2**32 - 1)
offsets = st.integers(0, 2**64 - 1)
payloads = st.binary(max_size=300)


def chunk(section: int, offset: int, data: bytes) -> model_pb2.Chunk:
    return model_pb2.Chunk(section=section, offset=offset, checksum=xxhash.xxh3_64_intdigest(data), data=data)


def content(frame: object) -> tuple[int, int, bytes]:
    assert isinstance(frame, ChunkFrame), frame
    return frame.section, frame.offset, bytes(frame.data)


@given(sections, offsets, payloads)
@example(0, 0, b"")
@example(0, 0, b"x" * CHUNK_BYTES)
def test_our_chunks_are_plain_protobuf(section: int, offset: int, data: bytes) -> None:
    wire = frames.encode_chunk(section, offset, memoryview(data))
    for message in (pb.UploadRequest, pb.DownloadResponse):
        parsed = message.FromString(wire)
        assert parsed.WhichOneof("part") == "chunk"
        assert parsed.chunk == chunk(section, offset, data)


@given(sections, offsets, payloads)
@example(0, 0, b"")
@example(2**32 - 1, 2**64 - 1, b"x" * CHUNK_BYTES)
def test_chunks_of_any_protobuf_client_are_understood(section: int, offset: int, data: bytes) -> None:
    for wire, decode in (
        (pb.UploadRequest(chunk=chunk(section, offset, data)).SerializeToString(), decode_upload),
        (pb.DownloadResponse(chunk=chunk(section, offset, data)).SerializeToString(), decode_download),
    ):
        assert content(decode(wire)) == (section, offset, data)


@given(sections, offsets, st.binary(min_size=1, max_size=300), st.permutations(range(4)))
def test_fields_of_a_chunk_may_come_in_any_order(section: int, offset: int, data: bytes, order: list[int]) -> None:
    whole = chunk(section, offset, data)
    parts = [
        model_pb2.Chunk(section=whole.section),
        model_pb2.Chunk(offset=whole.offset),
        model_pb2.Chunk(checksum=whole.checksum),
        model_pb2.Chunk(data=whole.data),
    ]
    body = b"".join(parts[i].SerializeToString() for i in order)
    wire = b"\x1a" + _varint(len(body)) + body
    assert pb.UploadRequest.FromString(wire).chunk == whole
    assert content(decode_upload(wire)) == (section, offset, data)


def test_the_payload_is_a_view_of_what_was_received() -> None:
    wire = frames.encode_chunk(0, 0, memoryview(b"payload"))
    frame = decode_upload(wire)
    assert isinstance(frame, ChunkFrame)
    assert frame.data.obj is wire


@given(st.integers(0, 3 * CHUNK_BYTES), st.integers(0, 4))
@example(0, 0)
@example(CHUNK_BYTES, 0)
@example(2 * CHUNK_BYTES, 1)
def test_a_section_is_cut_without_gaps(size: int, block: int) -> None:
    start = min(size, block * CHUNK_BYTES)
    assert frames.is_border(start, size)
    whole = memoryview(_PATTERN)[:size]
    rebuilt, position = bytearray(), start
    for wire in frames.encode_section(0, whole, start):
        assert len(wire) <= MAX_MESSAGE_BYTES
        section, offset, data = content(decode_upload(wire))
        assert (section, offset) == (0, position)
        assert 0 < len(data) <= CHUNK_BYTES
        rebuilt += data
        position += len(data)
    assert rebuilt == whole[start:]


def arrives(size: int, breaks: list[int]) -> Reassembly:
    """A section of the pattern sent from the start, again from the border where it broke after so many chunks."""
    arriving = Reassembly(size)
    for chunks in [*breaks, 4]:
        messages = frames.encode_section(0, memoryview(_PATTERN)[:size], arriving.received)
        for wire in itertools.islice(messages, chunks):
            frame = decode_upload(wire)
            assert isinstance(frame, ChunkFrame)
            arriving.take(frame)
    return arriving


def oracle(size: int) -> int:
    blocks = [_PATTERN[at : min(size, at + CHUNK_BYTES)] for at in range(0, size, CHUNK_BYTES)]
    return xxhash.xxh3_64_intdigest(b"".join(struct.pack("<Q", xxhash.xxh3_64_intdigest(block)) for block in blocks))


@given(st.integers(0, 3 * CHUNK_BYTES), st.lists(st.integers(0, 2), max_size=3))
@example(0, [])
@example(CHUNK_BYTES, [1])
def test_a_section_arrives_whole_wherever_it_broke(size: int, breaks: list[int]) -> None:
    arriving = arrives(size, breaks)
    assert arriving.received == size
    assert frames.section_checksum(memoryview(_PATTERN)[:size]) == oracle(size)
    arriving.finish(model_pb2.Finish(section_checksums=[oracle(size)]))


_SIZE = CHUNK_BYTES + 20


@pytest.mark.parametrize(
    ("section", "offset", "size"),
    [
        (0, 0, CHUNK_BYTES),  # again
        (0, CHUNK_BYTES, 19),  # not the whole block
        (0, CHUNK_BYTES, 21),  # past the end
        (0, CHUNK_BYTES + 1, 19),  # a gap
        (0, CHUNK_BYTES, 0),
        (1, CHUNK_BYTES, 20),
        (0, 2**64 - 1, 20),
        (2**32 - 1, CHUNK_BYTES, 20),
    ],
)
def test_only_the_block_that_follows_is_taken(section: int, offset: int, size: int) -> None:
    arriving = Reassembly(_SIZE)
    data = memoryview(_PATTERN)
    arriving.take(ChunkFrame(0, 0, data[:CHUNK_BYTES], frames.checksum(data[:CHUNK_BYTES])))
    with pytest.raises(FrameError, match=f"20 at {CHUNK_BYTES} of section 0 were next"):
        arriving.take(ChunkFrame(section, offset, data[:size], frames.checksum(data[:size])))
    assert arriving.received == CHUNK_BYTES


def test_an_early_end_keeps_what_has_come() -> None:
    arriving = arrives(2 * CHUNK_BYTES, [])
    early = Reassembly(2 * CHUNK_BYTES + 1)
    early.offsets = list(arriving.offsets)
    with pytest.raises(FrameError, match=f"ended after {2 * CHUNK_BYTES} of {2 * CHUNK_BYTES + 1} bytes"):
        early.finish(model_pb2.Finish(section_checksums=[oracle(2 * CHUNK_BYTES)]))
    assert early.received == 2 * CHUNK_BYTES


@pytest.mark.parametrize("checksums", [[], [0], [1, 2]])
def test_a_whole_that_does_not_fit_its_checksum_starts_over(checksums: list[int]) -> None:
    arriving = arrives(_SIZE, [])
    with pytest.raises(FrameError, match="does not fit what arrived"):
        arriving.finish(model_pb2.Finish(section_checksums=checksums))
    assert arriving.received == 0


@pytest.mark.parametrize(
    ("offset", "nbytes", "is_border"),
    [(0, 0, True), (0, 5, True), (5, 5, True), (4, 5, False), (6, 5, False), (CHUNK_BYTES, CHUNK_BYTES + 1, True)],
)
def test_where_a_section_can_be_resumed(offset: int, nbytes: int, is_border: bool) -> None:
    assert frames.is_border(offset, nbytes) is is_border
    assert not frames.is_border(2 * CHUNK_BYTES, CHUNK_BYTES + 1)


_PATTERN = bytes(range(251)) * (3 * CHUNK_BYTES // 251 + 1)

headers = st.builds(
    pb.UploadHeader,
    lease_id=st.text(max_size=20),
    task_id=st.text(max_size=20),
    kind=st.sampled_from([0, 1]),
    base_version=offsets,
    report=st.builds(pb.TrainingReport, examples=offsets, seconds=st.floats(allow_nan=False)),
)
finishes = st.builds(model_pb2.Finish, section_checksums=st.lists(offsets, max_size=4))


@given(st.one_of(headers.map(lambda h: pb.UploadRequest(header=h)), finishes.map(lambda f: pb.UploadRequest(finish=f))))
def test_other_messages_are_left_to_protobuf(message: pb.UploadRequest) -> None:
    wire = frames.encode(message)
    assert wire == message.SerializeToString()
    assert decode_upload(wire) == message


def test_ready_chunks_pass_the_encoder_untouched() -> None:
    wire = frames.encode_chunk(0, 0, memoryview(b"abc"))
    assert frames.encode(wire) is wire


# ---- what the network or a bad peer may do


@given(st.binary(max_size=200))
def test_no_bytes_raise(wire: bytes) -> None:
    assert isinstance(decode_upload(wire), Chunk | FrameError | pb.UploadRequest)


@given(st.binary(max_size=60))
def test_no_bytes_after_a_chunk_tag_raise(rest: bytes) -> None:
    assert isinstance(decode_upload(b"\x1a" + rest), Chunk | FrameError)


@given(sections, offsets, st.binary(min_size=1, max_size=300), st.data())
def test_a_cut_chunk_is_an_error(section: int, offset: int, data: bytes, draw: st.DataObject) -> None:
    wire = frames.encode_chunk(section, offset, memoryview(data))
    cut = draw.draw(st.integers(1, len(wire) - 1))
    assert isinstance(decode_upload(wire[:cut]), FrameError)


@given(sections, offsets, st.binary(min_size=1, max_size=300), st.data())
def test_a_flipped_bit_never_gives_other_data(section: int, offset: int, data: bytes, draw: st.DataObject) -> None:
    """A flip in the position is found by the receiver, who knows where the next chunk belongs."""
    wire = bytearray(frames.encode_chunk(section, offset, memoryview(data)))
    bit = draw.draw(st.integers(0, 8 * len(wire) - 1))
    wire[bit // 8] ^= 1 << bit % 8
    got = decode_upload(bytes(wire))
    if isinstance(got, PackedChunk):
        with pytest.raises(FrameError):
            got.unpacked()
    elif isinstance(got, ChunkFrame):
        assert bytes(got.data) == data
        assert (got.section, got.offset) != (section, offset)
    elif isinstance(got, pb.UploadRequest):
        assert bit < 8, "only another first tag can make another message of it"
        assert got.WhichOneof("part") != "chunk"


@given(headers, st.data())
def test_a_damaged_header_is_an_error_or_a_message(header: pb.UploadHeader, draw: st.DataObject) -> None:
    wire = bytearray(pb.UploadRequest(header=header).SerializeToString())
    bit = draw.draw(st.integers(0, 8 * len(wire) - 1))
    wire[bit // 8] ^= 1 << bit % 8
    try:
        expected: object = pb.UploadRequest.FromString(bytes(wire))
    except DecodeError:
        expected = None
    got = decode_upload(bytes(wire))
    if isinstance(got, pb.UploadRequest):
        assert got == expected
    else:
        assert isinstance(got, Chunk | FrameError)


def test_chunks_that_are_hidden_from_the_fast_path_are_refused() -> None:
    """A chunk after another part, or behind a tag of two bytes, would come back without its checksum compared."""
    inner = frames.encode_chunk(0, 0, memoryview(b"abc"))
    for wire in (pb.UploadRequest(finish=model_pb2.Finish()).SerializeToString() + inner, b"\x9a\x00" + inner[1:]):
        assert pb.UploadRequest.FromString(wire).WhichOneof("part") == "chunk"
        assert isinstance(decode_upload(wire), FrameError)


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        (b"\x1a", "not a chunk"),
        (b"\x1a\x05", "a chunk of 5 bytes came as 0"),
        (b"\x1a" + b"\xff" * 12, "varint"),
        (b"\x1a\x02\x28\x01", "unknown field with tag 40"),
        (b"\x1a\x02\x19\x01", "checksum cut off"),
        (b"\x1a\x02\x7a\x09", "data cut off"),
        (b"\x1a\x02\x20\x02", "compression 2, which is unknown"),
        (b"\x0a\xff", "not a UploadRequest"),
    ],
)
def test_errors_say_what_is_wrong(wire: bytes, complaint: str) -> None:
    error = decode_upload(wire)
    assert isinstance(error, FrameError)
    assert complaint in str(error)


def test_a_wrong_checksum_says_where() -> None:
    wire = pb.UploadRequest(chunk=model_pb2.Chunk(section=1, offset=64, checksum=5, data=b"x")).SerializeToString()
    error = decode_upload(wire)
    assert isinstance(error, FrameError)
    assert str(error) == "the chunk at offset 64 of section 1 does not fit its checksum"


def _varint(value: int) -> bytes:
    """Protobuf's own varint, borrowed from a message with one field."""
    return model_pb2.Section(encoded_bytes=value).SerializeToString()[1:] if value else b"\0"

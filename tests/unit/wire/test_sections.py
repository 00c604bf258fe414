"""Two sections in one transfer: where they lie, how they are announced, and how they arrive wherever a stream broke."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.control import STAMP, Stamp, control_layout
from metisfl.wire.frames import ChunkFrame, FrameError
from metisfl.wire.layout import Layout, LayoutError, aligned_zeros
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.reassembly import Reassembly
from metisfl.wire.sections import Sections
from metisfl.wire.transport import Transport

MODEL = Layout.of(
    {
        "half": np.zeros(3, np.float16),
        "w": np.zeros((2, 5), np.float32),
        "count": np.zeros(2, np.int64),
        "wide": np.zeros(4),
        "mean": np.zeros(6, np.float32),
        "b": np.zeros((), np.float32),
    },
    frozen=("mean",),
)

decode = frames.decoder(pb.UploadRequest)


def sections_of(first: int, second: int) -> Sections:
    """Sections of so many bytes."""
    layouts = (Layout.of({"w": np.zeros(nbytes, np.uint8)}) for nbytes in (first, second))
    return Sections.of(*(Encoding(layout, Codec.FLOAT32) for layout in layouts))


# ---- control variates


def test_trainable_floats_have_control_variates_wide_enough_for_sums() -> None:
    layout = control_layout(MODEL)
    assert [(tensor.name, tensor.dtype, tensor.shape, tensor.trainable) for tensor in layout.tensors] == [
        ("half", "float32", (3,), True),
        ("w", "float32", (2, 5), True),
        ("wide", "float64", (4,), True),
        ("b", "float32", (), True),
        (STAMP, "int64", (3,), False),
    ]
    control = layout.allocate()
    Stamp(1, 2, 3).write(layout, control)
    assert Stamp.of(layout, control) == Stamp(1, 2, 3)


def test_a_tensor_with_the_stamps_name_is_refused() -> None:
    with pytest.raises(LayoutError, match=f"two tensors are named '{STAMP}'"):
        control_layout(Layout.of({STAMP: np.zeros(3, np.float32)}))


@pytest.mark.parametrize("codec", Codec)
def test_control_variates_travel_without_loss_beside_any_codec(codec: Codec) -> None:
    transport = Transport(codec, control=True)
    for sections in (transport.download_sections(MODEL), transport.upload_sections(MODEL)):
        assert sections.names == ["model", "control"]
        assert sections.control == Encoding(control_layout(MODEL), Codec.FLOAT32)
    assert replace(transport, control=False).upload_sections(MODEL).control is None
    terms = pb.JoinResponse()
    transport.tell(terms)
    assert (Transport.of(terms).codec, Transport.of(terms).control) == (codec, True)


# ---- places and headers


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_sections_share_a_place_without_touching(first: int, second: int) -> None:
    sections = sections_of(first, second)
    place = aligned_zeros(sections.nbytes)
    for number, (_, encoding, part) in enumerate(sections.of_place(place), 1):
        assert part.size == encoding.nbytes
        assert part.ctypes.data % 64 == 0
        part[:] = number
    assert np.count_nonzero(place == 1) == first
    assert np.count_nonzero(place == 2) == second


SECTIONS = sections_of(10, 20)
ANNOUNCED = SECTIONS.announce()


@pytest.mark.parametrize(
    ("announced", "problem"),
    [
        (ANNOUNCED, None),
        (ANNOUNCED[:1], "expected section 'model', 'control', got 'model'"),
        (ANNOUNCED[1:], "expected section 'model', 'control', got 'control'"),
        (ANNOUNCED[::-1], "expected section 'model', 'control', got 'control', 'model'"),
        ([*ANNOUNCED, ANNOUNCED[1]], "expected section 'model', 'control', got 'model', 'control', 'control'"),
        ([], "expected section 'model', 'control', got none"),
        ([ANNOUNCED[0], sections_of(10, 21).announce()[1]], "section 'control': 21 bytes are declared"),
        ([sections_of(11, 20).announce()[0], ANNOUNCED[1]], "11 bytes are declared"),
    ],
)
def test_a_header_with_other_sections_says_what_is_wrong(
    announced: list[model_pb2.Section], problem: str | None
) -> None:
    found = SECTIONS.mismatch(announced)
    assert found == problem if problem is None else problem in str(found)


# ---- arriving


PATTERN = memoryview(np.random.default_rng(2).bytes(5 * CHUNK_BYTES))
SIZES = st.sampled_from([0, 1, 77, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5])


def sent(contents: list[memoryview], offsets: list[int]) -> Any:
    """All chunks from these offsets on, as they arrive."""
    for number, (content, offset) in enumerate(zip(contents, offsets, strict=True)):
        yield from (decode(wire) for wire in frames.encode_section(number, content, offset))


@given(SIZES, SIZES, st.lists(st.integers(0, 3), max_size=4))
@example(CHUNK_BYTES, 2 * CHUNK_BYTES + 5, [1, 1, 1])
def test_both_sections_arrive_whole_wherever_the_stream_broke(first: int, second: int, breaks: list[int]) -> None:
    contents = [PATTERN[:first], PATTERN[first : first + second]]
    arriving = Reassembly(first, second)
    got = [bytearray(), bytearray()]
    for chunks in [*breaks, 10]:
        assert arriving.offsets == [len(part) for part in got]
        for frame in itertools.islice(sent(contents, list(arriving.offsets)), chunks):
            assert isinstance(frame, ChunkFrame)
            arriving.take(frame)
            got[frame.section] += frame.data
    assert [bytes(part) for part in got] == [bytes(content) for content in contents]
    checksums = [frames.section_checksum(content) for content in contents]
    arriving.finish(model_pb2.Finish(section_checksums=checksums))


def test_a_section_before_its_turn_is_refused() -> None:
    arriving = Reassembly(CHUNK_BYTES + 1, 5)
    early = ChunkFrame(1, 0, PATTERN[:5], frames.checksum(PATTERN[:5]))
    with pytest.raises(FrameError, match=f"section 1 came where {CHUNK_BYTES} at 0 of section 0 were next"):
        arriving.take(early)
    for frame in sent([PATTERN[: CHUNK_BYTES + 1]], [0]):
        arriving.take(frame)
    arriving.take(early)
    assert arriving.offsets == [CHUNK_BYTES + 1, 5]


@pytest.mark.parametrize("swap", [[1, 0], [0, 0], [0], [0, 1, 1]])
def test_checksums_of_other_sections_are_refused_and_both_come_again(swap: list[int]) -> None:
    contents = [PATTERN[:70], PATTERN[70:170]]
    arriving = Reassembly(70, 100)
    for frame in sent(contents, [0, 0]):
        arriving.take(frame)
    checksums = [frames.section_checksum(contents[number]) for number in swap]
    with pytest.raises(FrameError, match="does not fit what arrived"):
        arriving.finish(model_pb2.Finish(section_checksums=checksums))
    assert arriving.offsets == [0, 0]


def test_an_end_after_the_first_section_keeps_it() -> None:
    arriving = Reassembly(70, 100)
    for frame in sent([PATTERN[:70]], [0]):
        arriving.take(frame)
    with pytest.raises(FrameError, match="ended after 70 of 170 bytes"):
        arriving.finish(model_pb2.Finish(section_checksums=[frames.section_checksum(PATTERN[:70])]))
    assert arriving.offsets == [70, 0]

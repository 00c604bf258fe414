"""A download piece by piece: what is refused, and what is kept for the next attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.control import control_layout
from metisfl.wire.frames import ChunkFrame
from metisfl.wire.layout import Layout
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.sections import Sections
from metisfl_learner.exits import FatalError
from metisfl_learner.transfers import Download, TransferError, receive

ARRAYS = {"w": np.arange(300_000, dtype=np.float32), "n": np.array(7, np.int64)}
LAYOUT = Layout.of(ARRAYS)
SECTIONS = Sections.of(Encoding(LAYOUT, Codec.FLOAT32))
CONTENT = LAYOUT.pack(ARRAYS).data
FINISH = model_pb2.Finish(section_checksums=[frames.section_checksum(CONTENT)])


def chunks(start: int = 0) -> list[ChunkFrame]:
    pieces = ((at, CONTENT[at : at + CHUNK_BYTES]) for at in range(start, len(CONTENT), CHUNK_BYTES))
    return [ChunkFrame(0, at, data, frames.checksum(data)) for at, data in pieces]


def header(
    version: int = 3,
    layout: Layout = LAYOUT,
    nbytes: int = LAYOUT.nbytes,
    codec: model_pb2.Codec.ValueType = model_pb2.CODEC_FLOAT32,
) -> pb.DownloadHeader:
    section = model_pb2.Section(name="model", layout=layout.to_proto(), codec=codec, encoded_bytes=nbytes)
    return pb.DownloadHeader(model_version=version, sections=[section])


class FakeCall:
    """What a Download call yields, and then an error if there is one."""

    def __init__(self, messages: list[Any], error: Exception | None = None) -> None:
        self.messages, self.error = messages, error

    async def __aiter__(self) -> AsyncIterator[Any]:
        for message in self.messages:
            yield message
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        pass


def message(header: pb.DownloadHeader | None = None, finish: model_pb2.Finish | None = None) -> pb.DownloadResponse:
    return pb.DownloadResponse(header=header, finish=finish)


async def test_a_download_that_broke_goes_on_where_it_was() -> None:
    download = Download(3, SECTIONS)
    with pytest.raises(TransferError, match="ended the stream early"):
        await receive(FakeCall([message(header()), chunks()[0]]), download)
    assert download.arriving.received == CHUNK_BYTES
    await receive(FakeCall([message(header()), *chunks(CHUNK_BYTES), message(finish=FINISH)]), download)
    assert bytes(download.place.data) == bytes(CONTENT)


async def test_a_download_of_two_sections_goes_on_in_either() -> None:
    sections = Sections.of(SECTIONS.model, Encoding(control_layout(LAYOUT), Codec.FLOAT32))
    assert sections.control is not None
    control = sections.control.layout.allocate()
    control[:1_200_000] = CONTENT[:1_200_000]
    beside = [
        ChunkFrame(1, at, piece, frames.checksum(piece))
        for at in range(0, control.size, CHUNK_BYTES)
        for piece in [control.data[at : at + CHUNK_BYTES]]
    ]
    announced = message(pb.DownloadHeader(model_version=3, sections=sections.announce()))
    finish = model_pb2.Finish(section_checksums=[*FINISH.section_checksums, frames.section_checksum(control.data)])
    download = Download(3, sections)
    for part, offsets in (
        ([chunks()[0]], [CHUNK_BYTES, 0]),
        ([*chunks(CHUNK_BYTES), beside[0]], [LAYOUT.nbytes, CHUNK_BYTES]),
    ):
        with pytest.raises(TransferError, match="ended the stream early"):
            await receive(FakeCall([announced, *part]), download)
        assert download.arriving.offsets == offsets
    await receive(FakeCall([announced, *beside[1:], message(finish=finish)]), download)
    received = download.received()
    assert (bytes(received.model), bytes(received.variate)) == (bytes(CONTENT), bytes(control))
    with pytest.raises(TransferError, match="announced otherwise than agreed: expected section 'model', 'control'"):
        Download(3, sections).header(header())
    with pytest.raises(TransferError, match="expected section 'model', got 'model', 'control'"):
        Download(3, SECTIONS).header(announced.header)


async def test_a_chunk_that_is_not_the_next_one_is_refused() -> None:
    download = Download(3, SECTIONS)
    with pytest.raises(TransferError, match=r"version 3 broke off: a chunk of .* were next"):
        await receive(FakeCall([message(header()), chunks()[0], chunks()[0]]), download)
    assert download.arriving.received == CHUNK_BYTES


async def test_early_end_keeps_what_has_come() -> None:
    download = Download(3, SECTIONS)
    with pytest.raises(TransferError, match=f"ended after {CHUNK_BYTES} of {LAYOUT.nbytes} bytes"):
        await receive(FakeCall([message(header()), chunks()[0], message(finish=FINISH)]), download)
    assert download.arriving.received == CHUNK_BYTES


async def test_wrong_checksum_starts_over() -> None:
    download = Download(3, SECTIONS)
    wrong = message(finish=model_pb2.Finish(section_checksums=[1]))
    with pytest.raises(TransferError, match="does not fit what arrived"):
        await receive(FakeCall([message(header()), *chunks(), wrong]), download)
    assert download.arriving.received == 0
    await receive(FakeCall([message(header()), *chunks(), message(finish=FINISH)]), download)
    assert bytes(download.place.data) == bytes(CONTENT)


def test_other_version_codec_or_size_is_refused() -> None:
    with pytest.raises(TransferError, match="asked for version 3"):
        Download(3, SECTIONS).header(header(version=4))
    with pytest.raises(TransferError, match="codec 4 was not agreed on at Join, which was Float32"):
        Download(3, SECTIONS).header(header(codec=model_pb2.CODEC_INT8))
    with pytest.raises(TransferError, match="5 bytes are declared, its layout has"):
        Download(3, SECTIONS).header(header(nbytes=5))


def test_other_layout_ends_the_learner_with_the_difference() -> None:
    other = Layout.of({"w": np.zeros(299, np.float32), "n": ARRAYS["n"]})
    with pytest.raises(FatalError, match=r"tensor 'w' is float32\[299\], expected float32\[300000\]"):
        Download(3, SECTIONS).header(header(layout=other))

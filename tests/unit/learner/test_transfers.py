"""A download piece by piece: what is refused, and what is kept for the next attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
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
from metisfl_learner.transfers import Download, KeptStream, StreamEndedError, TransferError, receive

ARRAYS = {"w": np.arange(300_000, dtype=np.float32), "n": np.array(7, np.int64)}
LAYOUT = Layout.of(ARRAYS)
SECTIONS = Sections.of(Encoding(LAYOUT, Codec.FLOAT32))
LEASE = "mine"
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
        self.requests: list[pb.DownloadRequest] = []
        self.ended = False

    async def write(self, request: pb.DownloadRequest) -> None:
        self.requests.append(request)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for message in self.messages:
            yield message
        if self.error is not None:
            raise self.error

    def done(self) -> bool:
        return self.ended

    def cancel(self) -> None:
        self.ended = True


class Unwritable(FakeCall):
    """A call on which nothing can be sent."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__([])
        self.code = code

    async def write(self, request: pb.DownloadRequest) -> None:
        raise grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")


def message(header: pb.DownloadHeader | None = None, finish: model_pb2.Finish | None = None) -> pb.DownloadResponse:
    return pb.DownloadResponse(header=header, finish=finish)


async def test_a_download_that_broke_goes_on_where_it_was() -> None:
    download = Download(3, SECTIONS)
    with pytest.raises(TransferError, match="ended the stream early"):
        await receive(FakeCall([message(header()), chunks()[0]]), LEASE, download)
    assert download.arriving.received == CHUNK_BYTES
    call = FakeCall([message(header()), *chunks(CHUNK_BYTES), message(finish=FINISH)])
    await receive(call, LEASE, download)
    assert bytes(download.place.data) == bytes(CONTENT)
    (request,) = call.requests
    assert (request.lease_id, request.model_version, list(request.offsets)) == (LEASE, 3, [CHUNK_BYTES])


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
            await receive(FakeCall([announced, *part]), LEASE, download)
        assert download.arriving.offsets == offsets
    await receive(FakeCall([announced, *beside[1:], message(finish=finish)]), LEASE, download)
    received = download.received()
    assert (bytes(received.model), bytes(received.variate)) == (bytes(CONTENT), bytes(control))
    with pytest.raises(TransferError, match="announced otherwise than agreed: expected section 'model', 'control'"):
        Download(3, sections).header(header())
    with pytest.raises(TransferError, match="expected section 'model', got 'model', 'control'"):
        Download(3, SECTIONS).header(announced.header)


async def test_a_chunk_that_is_not_the_next_one_is_refused() -> None:
    download = Download(3, SECTIONS)
    with pytest.raises(TransferError, match=r"version 3 broke off: a chunk of .* were next"):
        await receive(FakeCall([message(header()), chunks()[0], chunks()[0]]), LEASE, download)
    assert download.arriving.received == CHUNK_BYTES


async def test_early_end_keeps_what_has_come() -> None:
    download = Download(3, SECTIONS)
    with pytest.raises(TransferError, match=f"ended after {CHUNK_BYTES} of {LAYOUT.nbytes} bytes"):
        await receive(FakeCall([message(header()), chunks()[0], message(finish=FINISH)]), LEASE, download)
    assert download.arriving.received == CHUNK_BYTES


async def test_wrong_checksum_starts_over() -> None:
    download = Download(3, SECTIONS)
    wrong = message(finish=model_pb2.Finish(section_checksums=[1]))
    with pytest.raises(TransferError, match="does not fit what arrived"):
        await receive(FakeCall([message(header()), *chunks(), wrong]), LEASE, download)
    assert download.arriving.received == 0
    await receive(FakeCall([message(header()), *chunks(), message(finish=FINISH)]), LEASE, download)
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


class Streams:
    """Opens streams, and remembers them."""

    def __init__(self) -> None:
        self.opened: list[FakeCall] = []
        self.kept = KeptStream(self.open)

    def open(self) -> FakeCall:
        self.opened.append(FakeCall([]))
        return self.opened[-1]


async def same(call: FakeCall) -> FakeCall:
    return call


async def test_a_stream_is_kept_for_the_next_transfer() -> None:
    streams = Streams()
    assert await streams.kept.transfer(same) is await streams.kept.transfer(same)
    assert len(streams.opened) == 1


async def test_a_stream_that_was_ended_is_replaced() -> None:
    streams = Streams()
    first = await streams.kept.transfer(same)
    first.ended = True
    assert await streams.kept.transfer(same) is not first
    assert len(streams.opened) == 2


async def test_a_stream_that_ends_as_it_is_used_again_is_replaced_at_once() -> None:
    streams = Streams()
    first = await streams.kept.transfer(same)

    async def ended(call: FakeCall) -> FakeCall:
        if call is first:
            raise StreamEndedError("idle for long")
        return call

    assert await streams.kept.transfer(ended) is streams.opened[1]
    assert first.ended


async def test_a_new_stream_that_ends_is_no_reason_for_another() -> None:
    streams = Streams()

    async def ended(call: FakeCall) -> None:
        raise StreamEndedError("nothing comes")

    with pytest.raises(StreamEndedError):
        await streams.kept.transfer(ended)
    assert [call.ended for call in streams.opened] == [True]


async def test_a_stream_ends_with_the_transfer_that_fails() -> None:
    streams = Streams()
    await streams.kept.transfer(same)

    async def fails(call: FakeCall) -> None:
        raise TransferError("broke off")

    with pytest.raises(TransferError):
        await streams.kept.transfer(fails)
    assert streams.opened[0].ended
    await streams.kept.transfer(same)
    assert [call.ended for call in streams.opened] == [True, False]


async def test_transfers_that_overlap_have_streams_of_their_own_and_one_is_kept() -> None:
    streams = Streams()

    async def two(call: FakeCall) -> FakeCall:
        return await streams.kept.transfer(same)

    inner = await streams.kept.transfer(two)
    first, second = streams.opened
    assert inner is second
    assert (first.ended, second.ended) == (False, True)
    assert await streams.kept.transfer(same) is first


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE])
async def test_a_stream_that_was_gone_before_the_request_left_has_ended(code: grpc.StatusCode) -> None:
    with pytest.raises(StreamEndedError, match=f"{code.name}: gone"):
        await receive(Unwritable(code), LEASE, Download(3, SECTIONS))


async def test_a_refusal_stays_one_whenever_it_comes() -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await receive(Unwritable(grpc.StatusCode.PERMISSION_DENIED), LEASE, Download(3, SECTIONS))
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_stream_that_ended_with_its_transfer_takes_no_other_s_place() -> None:
    streams = Streams()

    async def last(call: FakeCall) -> None:
        await streams.kept.transfer(same)
        call.cancel()

    await streams.kept.transfer(last)
    assert await streams.kept.transfer(same) is streams.opened[1]
    assert not streams.opened[1].ended

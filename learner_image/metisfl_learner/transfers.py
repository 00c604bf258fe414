"""One model down, one result up: chunk by chunk, checked, and resumable at the byte where a transfer broke."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import grpc.aio

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.compression import Zstd
from metisfl.wire.frames import Chunk, ChunkFrame, FrameError, PackedChunk
from metisfl.wire.layout import Buffer, Layout, LayoutError, aligned_zeros
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.reassembly import Reassembly
from metisfl.wire.sections import CONTROL_SECTION, MODEL_SECTION, Sections
from metisfl_learner.exits import ExitCode, FatalError
from metisfl_learner.updates import Content
from metisfl_learner.work import Received, Result

T = TypeVar("T")

STALL_SECONDS = 60.0
"""Longest wait for one message of a stream to be sent or to come."""

GRANT_SECONDS = 600.0
"""Longest wait for room for an upload; the controller bounds how many it takes at once."""

RECEIPT_SECONDS = 300.0
"""Longest wait for the verdict after the last byte."""


END_SECONDS = 5.0
"""Longest wait for the controller to end a stream after its last message."""

# What gRPC says of a stream that has ended without its noticing: INTERNAL, even when it ended in an orderly way.
_GONE = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)


class TransferError(Exception):
    """A transfer that broke off or delivered something wrong; worth another attempt."""


class StreamEndedError(TransferError):
    """The stream ended where something should have come, or before anything could be sent on it."""


class KeptStream:
    """A stream of models that stays open for the next one. Transfers that overlap have streams of their own."""

    def __init__(self, open_stream: Callable[[], Any]) -> None:
        self._open = open_stream
        self._idle: Any = None

    async def transfer(self, one: Callable[[Any], Awaitable[T]]) -> T:
        """Run a transfer on the stream, which ends with whatever it raises."""
        call, self._idle = self._idle, None
        if call is not None and not call.done():
            # The controller or a proxy may have ended it while it was idle, or does so in this very moment.
            with suppress(StreamEndedError):
                return await self._on(call, one)
        return await self._on(self._open(), one)

    async def _on(self, call: Any, one: Callable[[Any], Awaitable[T]]) -> T:
        try:
            result = await one(call)
        except BaseException:
            call.cancel()
            raise
        if call.done():
            return result
        before, self._idle = self._idle, call
        if before is not None:
            before.cancel()
        return result


class Download:
    """An encoded version on its way in. `arriving` knows how far each section is; a later attempt goes on there."""

    def __init__(self, version: int, sections: Sections) -> None:
        self.version = version
        self.sections = sections
        self.place: Buffer = aligned_zeros(sections.nbytes)
        self.arriving = Reassembly(*sections.sizes)

    @property
    def fraction(self) -> float:
        return self.arriving.received / max(1, self.arriving.nbytes)

    def received(self) -> Received:
        """What has arrived, decoded."""
        parts = {name: encoding.decode(part) for name, encoding, part in self.sections.of_place(self.place)}
        return Received(parts[MODEL_SECTION], parts.get(CONTROL_SECTION))

    def request(self, lease_id: str) -> pb.DownloadRequest:
        """For what has not arrived yet."""
        return pb.DownloadRequest(
            lease_id=lease_id,
            model_version=self.version,
            codec=self.sections.model.codec.number,
            offsets=self.arriving.offsets,
        )

    def header(self, message: pb.DownloadHeader) -> None:
        """Raises TransferError unless what follows is this version, FatalError when it cannot be this learner's."""
        if message.model_version != self.version:
            raise TransferError(f"asked for version {self.version}, and something else came")
        for (_, encoding), section in zip(self.sections.encodings, message.sections, strict=False):
            self._check_layout(encoding.layout, section.layout)
        mismatch = self.sections.mismatch(message.sections)
        if mismatch is not None:
            raise TransferError(f"version {self.version} was announced otherwise than agreed: {mismatch}")

    def _check_layout(self, expected: Layout, announced: model_pb2.Layout) -> None:
        try:
            layout = Layout.from_proto(announced)
        except LayoutError as error:
            raise TransferError(f"version {self.version} has a layout that is not valid: {error}") from error
        if layout != expected:
            difference = "; ".join(expected.difference(layout))
            raise FatalError(
                ExitCode.REFUSED, f"model version {self.version} has another layout than this learner: {difference}"
            )

    def chunk(self, chunk: ChunkFrame) -> None:
        """Raises FrameError unless the chunk is the next one."""
        self.arriving.take(chunk)
        start = self.sections.starts[chunk.section] + chunk.offset
        self.place.data[start : start + len(chunk.data)] = chunk.data


async def receive(call: Any, lease_id: str, into: Download) -> None:
    """Ask for the rest of `into` on a Download stream, and take it in. Raises AioRpcError or TransferError; what has
    arrived stays."""
    try:
        messages: AsyncIterator[pb.DownloadResponse | Chunk | FrameError] = aiter(call)
        await _begin(call, into.request(lease_id))
        first = await _next(messages, STALL_SECONDS)
        if not isinstance(first, pb.DownloadResponse) or first.WhichOneof("part") != "header":
            raise TransferError(f"a download must begin with its header: {_name(first)} came")
        into.header(first.header)
        while isinstance(message := await _next(messages, STALL_SECONDS), Chunk):
            # Heartbeats must not wait for what takes long.
            if isinstance(message, PackedChunk):
                message = await asyncio.to_thread(message.unpacked)
            into.chunk(message)
        if not isinstance(message, pb.DownloadResponse) or message.WhichOneof("part") != "finish":
            raise TransferError(f"the download was broken off by {_name(message)}")
        into.arriving.finish(message.finish)
    except FrameError as error:
        raise TransferError(f"the download of version {into.version} broke off: {error}") from error


def header(lease_id: str, result: Result) -> pb.UploadRequest:
    """The first message of an upload."""
    return pb.UploadRequest(
        header=pb.UploadHeader(
            lease_id=lease_id,
            task_id=result.task_id,
            kind=result.content.kind,
            base_version=result.base_version,
            sections=result.content.sections.announce(),
            report=result.report,
        )
    )


async def send(call: Any, first: pb.UploadRequest, content: Content, packer: Zstd | None = None) -> pb.Receipt:
    """Send a result on an Upload stream and wait for the receipt. A receipt that comes early is the last word on the
    stream. Raises AioRpcError or TransferError."""
    replies: AsyncIterator[pb.UploadResponse] = aiter(call)
    receipt: asyncio.Task[pb.UploadResponse] | None = None
    try:
        await _begin(call, first)
        reply = await _next(replies, GRANT_SECONDS)
        if reply.WhichOneof("reply") == "receipt":
            await _ended(replies)
            return reply.receipt
        offsets = _granted(reply, content)
        # Read while sending: the verdict may come early, and gRPC loses what is unread when a stream ends.
        receipt = asyncio.create_task(_next(replies, None))
        whole = await _send_rest(call, content, packer, offsets, receipt)
        reply = await _within(RECEIPT_SECONDS, receipt, "no receipt came")
        if reply.WhichOneof("reply") != "receipt":
            raise TransferError("a second grant came instead of the receipt")
        if not whole:
            await _ended(replies)
        return reply.receipt
    finally:
        if receipt is not None:
            receipt.cancel()
            await asyncio.gather(receipt, return_exceptions=True)


async def _send_rest(
    call: Any, content: Content, packer: Zstd | None, offsets: list[int], receipt: asyncio.Task[pb.UploadResponse]
) -> bool:
    """False when the verdict came first."""
    for section, (buffer, offset) in enumerate(zip(content.buffers, offsets, strict=True)):
        for start in range(offset, buffer.size, CHUNK_BYTES):
            if receipt.done():
                return False
            block = buffer.data[start : start + CHUNK_BYTES]
            if packer is None:
                chunk = frames.encode_chunk(section, start, block)
            else:
                # The higher levels take half a second for a block; heartbeats must not wait for that.
                chunk = await asyncio.to_thread(frames.encode_chunk, section, start, block, packer)
            await _write(call, chunk)
    await _write(call, pb.UploadRequest(finish=model_pb2.Finish(section_checksums=content.checksums)))
    return True


async def _begin(call: Any, message: pb.UploadRequest | pb.DownloadRequest) -> None:
    """The first message of a transfer. Raises StreamEndedError when it did not leave: the stream was gone by then."""
    try:
        await _write(call, message)
    except grpc.aio.AioRpcError as error:
        if error.code() not in _GONE:
            raise
        raise StreamEndedError(f"{error.code().name}: {error.details()}") from error


async def _write(call: Any, message: pb.UploadRequest | pb.DownloadRequest | bytes) -> None:
    # InvalidStateError: the controller has ended the stream; what is read next says why.
    with suppress(asyncio.InvalidStateError):
        await _within(STALL_SECONDS, call.write(message), "the controller takes no data")


def _granted(reply: pb.UploadResponse, content: Content) -> list[int]:
    """Where to go on in each section."""
    sizes = content.sections.sizes
    offsets = list(reply.grant.offsets) or [0] * len(sizes)
    if (
        reply.WhichOneof("reply") != "grant"
        or len(offsets) != len(sizes)
        or not all(map(frames.is_border, offsets, sizes))
    ):
        raise TransferError("the controller answered an upload with neither a receipt nor a usable grant")
    return offsets


async def _next(messages: AsyncIterator[T], seconds: float | None) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await anext(messages)
    except StopAsyncIteration:
        raise StreamEndedError("the controller ended the stream early") from None
    except TimeoutError:
        raise TransferError(f"nothing came for {seconds:.0f} s") from None


async def _ended(messages: AsyncIterator[Any]) -> None:
    """Let the controller end the stream: cancelling it would cut short what its handler still has to do."""
    with suppress(TransferError, grpc.aio.AioRpcError):
        await _next(messages, END_SECONDS)


async def _within(seconds: float, awaitable: Awaitable[T], complaint: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError:
        raise TransferError(f"{complaint} for {seconds:.0f} s") from None


def _name(message: pb.DownloadResponse | FrameError | Chunk) -> str:
    if isinstance(message, pb.DownloadResponse):
        return f"'{message.WhichOneof('part')}'"
    return "a chunk" if isinstance(message, Chunk) else str(message)

"""The controller as a learner sees it: five calls with deadlines, on one connection.

Unary calls have a deadline each. A model stream may take as long as it needs, but not without progress: every message
of it has one. The Tasks stream lives as long as the federation; HTTP/2 keepalive bounds how long a dead peer can go
unnoticed on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc
import grpc.aio

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import rpc
from metisfl.wire.compression import Zstd
from metisfl_learner import transfers
from metisfl_learner.work import Result

JOIN_SECONDS = 20.0
LEAVE_SECONDS = 2.0
WRITE_SECONDS = 60.0


class StreamClosedError(Exception):
    """The controller ended a Tasks stream in an orderly way, as it does when it shuts down."""


class TaskStream:
    """An open Tasks stream."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._tasks: AsyncIterator[pb.Task] = aiter(call)

    async def send(self, message: pb.LearnerMessage) -> None:
        """Raises AioRpcError or asyncio.InvalidStateError when the stream is broken."""
        async with asyncio.timeout(WRITE_SECONDS):
            await self._call.write(message)

    async def receive(self) -> pb.Task:
        """The next task. Raises AioRpcError when the stream broke, StreamClosedError when it was closed."""
        try:
            return await anext(self._tasks)
        except StopAsyncIteration:
            raise StreamClosedError("the controller closed the stream") from None

    def close(self) -> None:
        self._call.cancel()


class ControllerClient:
    """All calls of `metisfl.v1.Controller`. Whatever fails raises grpc.aio.AioRpcError with the server's words."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=rpc.CHANNEL_OPTIONS)
        self._join = rpc.JOIN.stub(self._channel)
        self._tasks = rpc.TASKS.stub(self._channel)
        self._download = rpc.DOWNLOAD.stub(self._channel)
        self._upload = rpc.UPLOAD.stub(self._channel)
        self._leave = rpc.LEAVE.stub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        response: pb.JoinResponse = await self._join(request, timeout=JOIN_SECONDS)
        return response

    def tasks(self) -> TaskStream:
        return TaskStream(self._tasks())

    async def download(self, lease_id: str, into: transfers.Download) -> None:
        """Go on with a download. Also raises TransferError."""
        request = pb.DownloadRequest(
            lease_id=lease_id,
            model_version=into.version,
            codec=into.encoding.codec.number,
            offsets=[into.received],
        )
        await transfers.receive(self._download(request), into)

    async def upload(self, lease_id: str, result: Result, packer: Zstd | None) -> pb.Receipt:
        """Upload a result from where the controller wants it. Also raises TransferError."""
        first = transfers.header(lease_id, result)
        return await transfers.send(self._upload(), first, result.content, packer)

    async def leave(self, lease_id: str, error: str = "") -> None:
        await self._leave(pb.LeaveRequest(lease_id=lease_id, error=error), timeout=LEAVE_SECONDS)

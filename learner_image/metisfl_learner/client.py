"""The controller as a learner sees it: six calls with deadlines, on one connection.

Unary calls have a deadline each. A model may take as long as it needs, but not without progress: while it is under way,
every message has a deadline. Its stream stays open for the next one. The Tasks stream lives as long as the federation;
HTTP/2 keepalive bounds how long a dead peer can go unnoticed on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc
import grpc.aio

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.tls.names import LearnerIdentity
from metisfl.wire import rpc
from metisfl.wire.compression import Zstd
from metisfl_learner import transfers
from metisfl_learner.security import Passport
from metisfl_learner.work import Result

ENROLL_SECONDS = 20.0
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

    def __init__(self, address: str, passport: Passport | None = None) -> None:
        """With a passport the connection is mutual TLS, and `certify` comes before every call but itself."""
        self.address = address
        self._passport = passport
        # On whatever channel is in use when a stream is opened.
        self._downloads = transfers.KeptStream(lambda: self._download())
        self._uploads = transfers.KeptStream(lambda: self._upload())
        self._use(self._certified_channel() if passport is None or passport.usable() else self._bootstrap_channel())

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._enroll = rpc.ENROLL.stub(self._channel)
        self._join = rpc.JOIN.stub(self._channel)
        self._tasks = rpc.TASKS.stub(self._channel)
        self._download = rpc.DOWNLOAD.stub(self._channel)
        self._upload = rpc.UPLOAD.stub(self._channel)
        self._leave = rpc.LEAVE.stub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    # ---- certificates; without a passport there are none, and nothing happens here

    @property
    def identity(self) -> LearnerIdentity | None:
        """Who the certificate says this learner is."""
        certified = self._passport.certified if self._passport else None
        return certified.identity if certified else None

    async def certify(self) -> None:
        """Have a certificate that the controller should accept, and enrol where there is none. Also raises
        FatalError."""
        if self._passport is not None and not self._passport.usable():
            await self._replace(self._bootstrap_channel())
            await self._passport.enrol(self._ask)
            await self._replace(self._certified_channel())

    async def renewal_due(self) -> None:
        """Return when the certificate should be renewed."""
        if self._passport is None:
            await asyncio.Event().wait()
            return
        await asyncio.sleep(max(0.0, self._passport.seconds_to_renewal))

    @property
    def renewal_pressing(self) -> bool:
        """Whether half of the time for a renewal is over."""
        return self._passport is not None and self._passport.renewal_pressing

    async def renew(self) -> None:
        """Fetch the next certificate; `reopen` puts it to use. Also raises FatalError."""
        if self._passport is not None:
            await self._passport.enrol(self._ask)

    async def reopen(self) -> None:
        """Go on with a new connection, as a channel keeps the certificate that it was opened with. Calls on the one
        before are broken off."""
        await self._replace(self._certified_channel())

    def forget_certificate(self) -> None:
        """The controller does not know it: `certify` is to enrol anew."""
        if self._passport is not None:
            self._passport.discard()

    async def _ask(self, request: pb.EnrollRequest) -> pb.EnrollResponse:
        response: pb.EnrollResponse = await self._enroll(request, timeout=ENROLL_SECONDS)
        return response

    async def _replace(self, channel: grpc.aio.Channel) -> None:
        before = self._channel
        self._use(channel)
        await before.close()

    def _certified_channel(self) -> grpc.aio.Channel:
        if self._passport is None:
            return grpc.aio.insecure_channel(self.address, options=rpc.CHANNEL_OPTIONS)
        return self._secure_channel(self._passport, self._passport.credentials())

    def _bootstrap_channel(self) -> grpc.aio.Channel:
        assert self._passport is not None
        return self._secure_channel(self._passport, self._passport.bootstrap())

    def _secure_channel(self, passport: Passport, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        # Sent as SNI and looked for in the certificate, whatever name or address was dialled.
        named = ("grpc.ssl_target_name_override", passport.trust.server_name)
        return grpc.aio.secure_channel(self.address, credentials, options=(*rpc.CHANNEL_OPTIONS, named))

    # ---- taking part

    async def join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        response: pb.JoinResponse = await self._join(request, timeout=JOIN_SECONDS)
        return response

    def tasks(self) -> TaskStream:
        return TaskStream(self._tasks())

    async def download(self, lease_id: str, into: transfers.Download) -> None:
        """Go on with a download. Also raises TransferError."""
        await self._downloads.transfer(lambda call: transfers.receive(call, lease_id, into))

    async def upload(self, lease_id: str, result: Result, packer: Zstd | None) -> pb.Receipt:
        """Upload a result from where the controller wants it. Also raises TransferError."""
        first = transfers.header(lease_id, result)
        return await self._uploads.transfer(lambda call: transfers.send(call, first, result.content, packer))

    async def leave(self, lease_id: str, error: str = "") -> None:
        await self._leave(pb.LeaveRequest(lease_id=lease_id, error=error), timeout=LEAVE_SECONDS)

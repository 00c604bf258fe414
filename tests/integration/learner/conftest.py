"""A scripted controller that speaks the real protocol on loopback, and learners to let loose on it."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames, rpc
from metisfl.wire.frames import Chunk, PackedChunk
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.transport import LOSSLESS, Transport

WAIT_SECONDS = 40.0


@dataclass
class Received:
    """An upload, complete or not."""

    header: pb.UploadHeader
    start: int
    content: bytearray
    checksum: int | None = None
    payload: int = 0
    """Bytes on the wire."""
    control: bytearray = field(default_factory=bytearray)
    """The second section, if there is one."""
    offsets: list[int] = field(default_factory=list)
    """Where the stream was to go on in each section."""


@dataclass
class FakeController:
    """Sends the tasks a test puts into `tasks`, records everything, and breaks where it is told to."""

    port: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    heartbeat_seconds: int = 1
    transport: Transport = LOSSLESS
    terms: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout | None = None
    models: dict[int, Buffer] = field(default_factory=dict)
    control: Buffer | None = None
    """The global control variate, where the transport has them."""
    join_refusal: tuple[grpc.StatusCode, str] | None = None
    tasks_refusals: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)
    break_downloads_after: list[int] = field(default_factory=list)
    corrupt_downloads: int = 0
    downloads_held: int = 0
    """So many downloads get no further than their header."""
    break_uploads_after: list[int] = field(default_factory=list)
    upload_errors: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)
    receipts: list[pb.Receipt] = field(default_factory=list)
    transfers_per_stream: int = 1_000
    """Then it is ended."""
    receipts_kept_back: int = 0
    """So many uploads hear nothing any more once they have arrived."""

    def __post_init__(self) -> None:
        self.tasks: asyncio.Queue[pb.Task] = asyncio.Queue()
        self.joins: list[pb.JoinRequest] = []
        self.readies: asyncio.Queue[pb.Ready] = asyncio.Queue()
        self.messages: asyncio.Queue[pb.LearnerMessage] = asyncio.Queue()
        self.heartbeats: list[pb.Heartbeat] = []
        self._heartbeat_came = asyncio.Event()
        self.download_offsets: list[int] = []
        self.holding = asyncio.Event()
        """A download is held."""
        self.download_streams = self.upload_streams = 0
        """So many have been opened."""
        self.uploads: list[Received] = []
        self.receipted: asyncio.Queue[Received] = asyncio.Queue()
        self.leaves: asyncio.Queue[pb.LeaveRequest] = asyncio.Queue()
        self.partial: dict[str, list[bytearray]] = {}
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = grpc.aio.server(options=rpc.SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (
                rpc.generic_handler(
                    {
                        "Enroll": self._enroll,
                        "Join": self._join,
                        "Tasks": self._tasks,
                        "Download": self._download,
                        "Upload": self._upload,
                        "Leave": self._leave,
                    }
                ),
            )
        )
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    def serve(self, version: int, arrays: Mapping[str, np.ndarray[Any, Any]], frozen: tuple[str, ...] = ()) -> None:
        self.layout = Layout.of(arrays, frozen)
        self.models[version] = self.layout.pack(arrays)

    async def next_ready(self) -> pb.Ready:
        return await asyncio.wait_for(self.readies.get(), WAIT_SECONDS)

    async def next_message(self) -> pb.LearnerMessage:
        """The next evaluation or failure."""
        return await asyncio.wait_for(self.messages.get(), WAIT_SECONDS)

    async def next_receipted(self) -> Received:
        return await asyncio.wait_for(self.receipted.get(), WAIT_SECONDS)

    async def next_leave(self) -> pb.LeaveRequest:
        return await asyncio.wait_for(self.leaves.get(), WAIT_SECONDS)

    async def heartbeat(self, wanted: Callable[[pb.Heartbeat], bool]) -> None:
        """Wait until a heartbeat like this has come."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not any(map(wanted, self.heartbeats)):
                self._heartbeat_came.clear()
                await self._heartbeat_came.wait()

    async def activities(self, *wanted: pb.Activity.ValueType) -> None:
        """Wait until heartbeats have shown these activities one after the other, others between them or not."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                seen = iter([beat.activity for beat in self.heartbeats])
                if all(activity in seen for activity in wanted):
                    return
                self._heartbeat_came.clear()
                await self._heartbeat_came.wait()

    async def _enroll(self, request: pb.EnrollRequest, context: Any) -> pb.EnrollResponse:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this controller has no TLS")

    async def _join(self, request: pb.JoinRequest, context: Any) -> pb.JoinResponse:
        self.joins.append(request)
        if self.join_refusal is not None:
            await context.abort(*self.join_refusal)
        response = pb.JoinResponse(
            learner_id=f"{request.group}-{request.ordinal}",
            lease=pb.Lease(id=f"lease-{len(self.joins)}", seconds=10, heartbeat_seconds=self.heartbeat_seconds),
            parameters=self.parameters,
            partition=pb.Partition(index=request.ordinal, count=4),
            federation="test",
            federation_uid="uid",
        )
        self.transport.tell(response)
        response.MergeFrom(pb.JoinResponse(**self.terms))
        return response

    async def _tasks(self, requests: AsyncIterator[pb.LearnerMessage], context: Any) -> AsyncIterator[pb.Task]:
        first = await anext(aiter(requests))
        if self.tasks_refusals:
            await context.abort(*self.tasks_refusals.pop(0))
        self.readies.put_nowait(first.ready)
        reader = asyncio.create_task(self._take(requests))
        try:
            while True:
                yield await self.tasks.get()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _take(self, requests: AsyncIterator[pb.LearnerMessage]) -> None:
        async for message in requests:
            if message.WhichOneof("message") == "heartbeat":
                self.heartbeats.append(message.heartbeat)
                self._heartbeat_came.set()
            else:
                self.messages.put_nowait(message)

    async def _download(self, requests: AsyncIterator[pb.DownloadRequest], context: Any) -> None:
        self.download_streams += 1
        for _ in range(self.transfers_per_stream):
            if (request := await anext(requests, None)) is None:
                return
            await self._send(request, context)

    async def _send(self, request: pb.DownloadRequest, context: Any) -> None:
        self.download_offsets.append(request.offsets[0])
        if request.model_version not in self.models:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"version {request.model_version} is gone")
        assert self.layout is not None
        sections = self.transport.download_sections(self.layout)
        assert request.codec == sections.model.codec.number
        model = sections.model.encode(self.models[request.model_version])
        contents = [each.data for each in (model, self.control) if each is not None]
        announced = sections.announce()
        header = pb.DownloadHeader(model_version=request.model_version, sections=announced)
        await context.write(pb.DownloadResponse(header=header))
        if self.downloads_held > 0:
            self.downloads_held -= 1
            self.holding.set()
            await asyncio.Event().wait()
        limit = self.break_downloads_after.pop(0) if self.break_downloads_after else None
        sent = 0
        for chunk in itertools.chain.from_iterable(
            frames.encode_section(number, content, offset, self.transport.packer)
            for number, (content, offset) in enumerate(zip(contents, request.offsets, strict=True))
        ):
            if limit is not None and sent >= limit:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the line broke")
            await context.write(chunk)
            sent += len(chunk)
        wrong = 1 if self.corrupt_downloads > 0 else 0
        self.corrupt_downloads -= wrong
        checksums = [frames.section_checksum(content) ^ wrong for content in contents]
        await context.write(pb.DownloadResponse(finish=model_pb2.Finish(section_checksums=checksums)))

    async def _upload(self, requests: AsyncIterator[Any], context: Any) -> None:
        self.upload_streams += 1
        for _ in range(self.transfers_per_stream):
            if (first := await anext(requests, None)) is None:
                return
            await self._take_in(first.header, requests, context)

    async def _take_in(self, header: pb.UploadHeader, requests: AsyncIterator[Any], context: Any) -> None:
        if self.upload_errors:
            await context.abort(*self.upload_errors.pop(0))
        parts = self.partial.setdefault(header.task_id, [bytearray() for _ in header.sections])
        offsets = [len(part) for part in parts]
        received = Received(header, offsets[0], parts[0], control=parts[-1], offsets=offsets)
        self.uploads.append(received)
        await context.write(pb.UploadResponse(grant=pb.Grant(offsets=offsets)))
        limit = self.break_uploads_after.pop(0) if self.break_uploads_after else None
        taken = 0
        while isinstance(message := await anext(requests), Chunk):
            if isinstance(message, PackedChunk):
                message = message.unpacked()
            assert message.offset == len(parts[message.section])
            parts[message.section] += message.data
            taken += len(message.data)
            received.payload += message.payload
            if limit is not None and taken >= limit:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the line broke")
        received.checksum = message.finish.section_checksums[0]
        receipt = self.receipts.pop(0) if self.receipts else pb.Receipt(outcome=pb.OUTCOME_ACCEPTED)
        del self.partial[header.task_id]
        if self.receipts_kept_back > 0:
            self.receipts_kept_back -= 1
            self.receipted.put_nowait(received)
            await asyncio.Event().wait()
        await context.write(pb.UploadResponse(receipt=receipt))
        self.receipted.put_nowait(received)

    async def _leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:
        self.leaves.put_nowait(request)
        return pb.LeaveResponse()


@pytest.fixture
async def controller() -> AsyncIterator[FakeController]:
    fake = FakeController()
    await fake.start()
    yield fake
    await fake.stop()


@dataclass
class LearnerProcess:
    """A real `python -m metisfl_learner`."""

    process: subprocess.Popen[str]

    async def finish(self) -> tuple[int, str]:
        """Exit status and everything it wrote."""
        output, _ = await asyncio.to_thread(self.process.communicate, timeout=WAIT_SECONDS)
        return self.process.returncode, output


Launch = Callable[..., LearnerProcess]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts learner processes; `code` becomes the module `mine` on their path."""
    started: list[subprocess.Popen[str]] = []

    def start(address: str, entrypoint: str, code: str = "", **variables: str) -> LearnerProcess:
        (tmp_path / "mine.py").write_text(code, encoding="utf-8")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(tmp_path),
            "METISFL_CONTROLLER": address,
            "METISFL_ENTRYPOINT": entrypoint,
            "METISFL_LEARNER_GROUP": "silo",
            "METISFL_LEARNER_ORDINAL": "0",
            **variables,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "metisfl_learner"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return LearnerProcess(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def attach() -> Callable[..., Any]:
    """An async context manager that runs a Session for a Learner class in this process."""
    from metisfl import logs
    from metisfl_learner.client import ControllerClient
    from metisfl_learner.learner import LearnerContext, PartitionPlace
    from metisfl_learner.session import Session
    from metisfl_learner.work import prepare
    from metisfl_learner.worker import Worker

    @asynccontextmanager
    async def run(
        address: str,
        learner_class: Any,
        connect_deadline_seconds: float = WAIT_SECONDS,
        state_dir: Path | None = None,
    ) -> AsyncIterator[asyncio.Task[None]]:
        log = logs.logger("test")

        def make(terms: pb.JoinResponse) -> Any:
            place = PartitionPlace(terms.partition.index, terms.partition.count)
            context = LearnerContext(terms.learner_id, terms.federation, dict(terms.parameters), place, state_dir, log)
            return prepare("test:Learner", learner_class, context, Transport.of(terms), terms.federation_uid)

        async with ControllerClient(address) as client:
            request = pb.JoinRequest(protocol_version=1, group="silo", ordinal=0)
            session = Session(client, request, make, Worker(), connect_deadline_seconds, log)
            task = asyncio.create_task(session.run())
            try:
                yield task
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return run

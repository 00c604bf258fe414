"""A controller on loopback, in this process or as a process of its own, and learners played by the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames, rpc
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.compression import Zstd
from metisfl.wire.control import Stamp
from metisfl.wire.layout import Buffer, Layout, aligned_zeros
from metisfl.wire.sections import Sections
from metisfl.wire.transport import Transport, supported_codecs, supported_compressions
from metisfl_controller import kernel_cache

# Before anything imports Numba; the controller keeps its kernels in the same place.
kernel_cache.prepare(os.environ)

WAIT_SECONDS = 30.0
START_SECONDS = 100.0
"""The first controller of a new machine compiles the kernels."""

Arrays = Mapping[str, np.ndarray]


def federation(**spec: Any) -> dict[str, Any]:
    """Two learners a-0 and a-1, in clear text, unless said otherwise."""
    return {
        "apiVersion": "metisfl.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": "test"},
        "spec": {
            "learner": {"entrypoint": "any:Class", "parameters": {"data": "digits"}},
            "learnerGroups": [{"name": "a", "replicas": 2}],
            "termination": {"maxRounds": 2},
            "security": {"tls": {"mode": "Disabled"}},
            **spec,
        },
    }


async def until(condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """The first true value of a condition."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):  # noqa: ASYNC110 - files and processes tell nobody
            await asyncio.sleep(0.01)
        return value


# ---- learners


@dataclass
class Uploading:
    """An Upload call: what the learner sends is the test's business, message by message."""

    call: Any

    async def send(self, *messages: pb.UploadRequest | bytes) -> None:
        """What cannot be written any more is left: why is in the reply, or in the call's code."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for message in messages:
                await asyncio.wait_for(self.call.write(message), WAIT_SECONDS)

    async def reply(self) -> pb.UploadResponse:
        """Raises AioRpcError when the call failed."""
        reply = await asyncio.wait_for(self.call.read(), WAIT_SECONDS)
        assert reply is not grpc.aio.EOF, "the call ended without a reply"
        return reply

    async def content(
        self, buffer: Buffer, start: int = 0, stop: int | None = None, packer: Zstd | None = None, section: int = 0
    ) -> None:
        for message in frames.encode_section(section, buffer.data[:stop], start, packer):
            await self.send(message)

    async def finish(self, *checksums: int) -> None:
        await self.send(pb.UploadRequest(finish=model_pb2.Finish(section_checksums=checksums)))

    async def code(self) -> grpc.StatusCode:
        return await asyncio.wait_for(self.call.code(), WAIT_SECONDS)

    def break_off(self) -> None:
        self.call.cancel()


@dataclass
class Player:
    """A learner in the hands of a test. `arrays` is its model; names in `frozen` are not trainable."""

    channel: grpc.aio.Channel
    group: str
    ordinal: int
    arrays: Arrays
    frozen: Sequence[str] = ()
    lease: str = ""
    tasks: Any = None
    transport: Transport = field(default_factory=Transport)
    received: Buffer | None = None
    """The last model that was downloaded, which updates are relative to."""
    control: Buffer | None = None
    """The control variate that came with it, if any."""
    variate: int = 0
    """The number of this learner's own."""

    @property
    def id(self) -> str:
        return f"{self.group}-{self.ordinal}"

    @property
    def layout(self) -> Layout:
        return Layout.of(self.arrays, self.frozen)

    async def join(self, **changes: Any) -> pb.JoinResponse:
        values = {
            "protocol_version": 1,
            "group": self.group,
            "ordinal": self.ordinal,
            "framework": "numpy",
            "codecs": supported_codecs(),
            "compressions": supported_compressions(),
            "capabilities": pb.Capability.values(),
            **changes,
        }
        response = await rpc.JOIN.stub(self.channel)(pb.JoinRequest(**values), timeout=WAIT_SECONDS)
        self.lease, self.transport = response.lease.id, Transport.of(response)
        return response

    async def open(self, held: Sequence[str] = (), running: str = "", **changes: Any) -> None:
        """Open the task stream with this learner's model."""
        values = {
            "lease_id": self.lease,
            "train_examples": 10,
            "test_examples": 5,
            "layout": self.layout.to_proto(),
            "held_tasks": held,
            "running_task": running,
            **changes,
        }
        self.tasks = rpc.TASKS.stub(self.channel)()
        await self.tell(pb.LearnerMessage(ready=pb.Ready(**values)))

    async def enter(self, held: Sequence[str] = (), running: str = "") -> None:
        await self.join()
        await self.open(held, running)

    async def tell(self, message: pb.LearnerMessage) -> None:
        await asyncio.wait_for(self.tasks.write(message), WAIT_SECONDS)

    async def receive(self) -> pb.Task:
        """The next task. Raises AioRpcError when the stream failed, StopAsyncIteration when it ended."""
        task = await asyncio.wait_for(self.tasks.read(), WAIT_SECONDS)
        if task is grpc.aio.EOF:
            raise StopAsyncIteration
        return task

    async def task(self, kind: str) -> pb.Task:
        """The next task but for WAITs; it must be of this kind."""
        while (task := await self.receive()).kind == pb.TASK_KIND_WAIT:
            pass
        assert pb.TaskKind.Name(task.kind) == f"TASK_KIND_{kind}", task
        return task

    async def evaluate(self, task: pb.Task, examples: int = 5, **metrics: float) -> None:
        await self.tell(
            pb.LearnerMessage(
                evaluation=pb.Evaluation(
                    task_id=task.task_id,
                    model_version=task.model_version,
                    examples=examples,
                    metrics=[model_pb2.Metric(name=name, value=value) for name, value in metrics.items()],
                )
            )
        )

    def encoding(self, task: pb.Task) -> Encoding:
        """Of the task's result."""
        if task.kind == pb.TASK_KIND_INITIALISE:
            return Encoding(self.layout, Codec.FLOAT32)
        return self.transport.upload(self.layout)

    def sections(self, task: pb.Task) -> Sections:
        """What the task's result consists of."""
        if task.kind == pb.TASK_KIND_INITIALISE:
            return Sections.of(self.encoding(task))
        return self.transport.upload_sections(self.layout)

    def sends_update(self, task: pb.Task) -> bool:
        return self.transport.updates and task.kind != pb.TASK_KIND_INITIALISE

    def header(self, task: pb.Task, examples: int = 10, **changes: Any) -> pb.UploadRequest:
        values = {
            "lease_id": self.lease,
            "task_id": task.task_id,
            "kind": pb.UPLOAD_KIND_UPDATE if self.sends_update(task) else pb.UPLOAD_KIND_MODEL,
            "base_version": task.model_version,
            "sections": self.sections(task).announce(),
            "report": pb.TrainingReport(
                examples=examples, batches=1, metrics=[model_pb2.Metric(name="loss", value=0.5)]
            ),
            **changes,
        }
        return pb.UploadRequest(header=pb.UploadHeader(**values))

    def upload_call(self) -> Uploading:
        return Uploading(rpc.UPLOAD.stub(self.channel)())

    def content(self, task: pb.Task, arrays: Arrays) -> Buffer:
        """These weights as the task's result, encoded, and relative to the model as received if the codec wants it."""
        encoding = self.encoding(task)
        base = self.received if self.sends_update(task) else None
        return encoding.encode(self.layout.pack(arrays), base=base)

    async def upload(
        self, task: pb.Task, arrays: Arrays | None = None, content: Buffer | None = None, **header: Any
    ) -> pb.Receipt:
        """A whole upload, from where the controller wants it."""
        if content is None:
            content = self.content(task, self.arrays if arrays is None else arrays)
        call = self.upload_call()
        await call.send(self.header(task, **header))
        reply = await call.reply()
        if reply.HasField("grant"):
            parts = [content, *self.beside(task)]
            for section, (part, offset) in enumerate(zip(parts, reply.grant.offsets, strict=True)):
                await call.content(part, offset, packer=self.transport.packer, section=section)
            await call.finish(*(frames.section_checksum(part.data) for part in parts))
            reply = await call.reply()
        return reply.receipt

    def beside(self, task: pb.Task) -> list[Buffer]:
        """What goes with a result: no change of the control variate, where there is one."""
        control = self.sections(task).control
        if control is None:
            return []
        assert self.control is not None
        change, generation = control.layout.allocate(), Stamp.of(control.layout, self.control).generation
        Stamp(generation, self.variate, task.model_version + 1).write(control.layout, change)
        self.variate = task.model_version + 1
        return [change]

    async def delivers(self, task: pb.Task, arrays: Arrays | None = None, **header: Any) -> None:
        receipt = await self.upload(task, arrays, **header)
        assert receipt.outcome == pb.OUTCOME_ACCEPTED, receipt

    async def download(self, version: int, offset: int = 0, **changes: Any) -> Buffer:
        """The encoded sections in their place, those of the first from `offset` on, checked against the header and the
        chunks' positions."""
        sections = self.transport.download_sections(self.layout)
        request = pb.DownloadRequest(
            **{
                "lease_id": self.lease,
                "model_version": version,
                "codec": sections.model.codec.number,
                "offsets": [offset],
                **changes,
            }
        )
        place, positions = aligned_zeros(sections.nbytes), [offset, *[0] * (len(sections.names) - 1)]
        parts = [part for _, _, part in sections.of_place(place)]
        call = rpc.DOWNLOAD.stub(self.channel)(timeout=WAIT_SECONDS)
        await call.write(request)
        await call.done_writing()
        async for part in call:
            if isinstance(part, frames.PackedChunk):
                part = part.unpacked()
            if isinstance(part, frames.ChunkFrame):
                assert part.offset == positions[part.section]
                start, stop = part.offset, part.offset + len(part.data)
                parts[part.section][start:stop] = np.frombuffer(part.data, np.uint8)
                positions[part.section] = stop
            elif part.HasField("header"):
                assert list(part.header.sections) == sections.announce()
            elif part.HasField("finish") and offset == 0:
                assert list(part.finish.section_checksums) == [frames.section_checksum(part.data) for part in parts]
        assert positions == list(sections.sizes)
        return place

    async def model(self, version: int) -> dict[str, np.ndarray]:
        """The version as this learner receives it, which updates are relative to from now on."""
        sections, place = self.transport.download_sections(self.layout), await self.download(version)
        parts = {name: encoding.decode(part) for name, encoding, part in sections.of_place(place)}
        self.received, self.control = parts["model"], parts.get("control")
        return self.layout.views(self.received)

    async def leave(self, error: str = "") -> None:
        await rpc.LEAVE.stub(self.channel)(pb.LeaveRequest(lease_id=self.lease, error=error), timeout=WAIT_SECONDS)

    def hang_up(self) -> None:
        self.tasks.cancel()


MODEL: Arrays = {"w": np.zeros((3, 4), np.float32), "steps": np.array(0), "none": np.zeros((0, 2))}


@dataclass
class Table:
    """Where a controller listens, and the players at it."""

    grpc: str
    http: str
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def player(self, name: str, arrays: Arrays = MODEL, frozen: Sequence[str] = ("steps",)) -> Player:
        """A learner on a connection of its own; `name` is its id."""
        group, _, ordinal = name.rpartition("-")
        channel = grpc.aio.insecure_channel(self.grpc, options=rpc.CHANNEL_OPTIONS)
        self.channels.append(channel)
        return Player(channel, group, int(ordinal), arrays, frozen)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://{self.http}", timeout=WAIT_SECONDS) as client:
            return await client.get(path)

    async def put(self, path: str, document: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://{self.http}", timeout=WAIT_SECONDS) as client:
            return await client.put(path, json=document, headers=headers)

    async def status(self) -> dict[str, Any]:
        return (await self.get("/v1/federation")).json()

    async def until_status(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition(status := await self.status()):  # noqa: ASYNC110 - REST is polled
                await asyncio.sleep(0.02)
            return status

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()


# ---- controllers


def environment(folder: Path, spec: dict[str, Any], **settings: str) -> dict[str, str]:
    (folder / "federation.json").write_text(json.dumps(federation(**spec)))
    return {
        "METISFL_FEDERATION_FILE": str(folder / "federation.json"),
        "METISFL_STATE_DIR": str(folder / "state"),
        "METISFL_GRPC_ADDRESS": "127.0.0.1:0",
        "METISFL_HTTP_ADDRESS": "127.0.0.1:0",
        "METISFL_ENDPOINT_FILE": str(folder / "endpoints.json"),
        "METISFL_LOG_FORMAT": "text",
        **settings,
    }


@pytest.fixture
def served(tmp_path: Path) -> Callable[..., Any]:
    """`async with served(**spec) as table`: the whole service, in this process."""
    from metisfl.logs import logger
    from metisfl_controller.service import serve
    from metisfl_controller.settings import Settings

    @asynccontextmanager
    async def run(
        lease_seconds: int = 20, http: str = "127.0.0.1:0", settings: Mapping[str, str] | None = None, **spec: Any
    ) -> AsyncIterator[Table]:
        changes = {"METISFL_LEASE_SECONDS": str(lease_seconds), "METISFL_HTTP_ADDRESS": http, **(settings or {})}
        parsed = Settings.parse(environment(tmp_path, spec, **changes))
        stop, endpoints = asyncio.Event(), tmp_path / "endpoints.json"
        endpoints.unlink(missing_ok=True)
        service = asyncio.create_task(serve(parsed, logger("metisfl.controller"), stop))
        await until(lambda: endpoints.exists() or service.done(), START_SECONDS)
        if service.done():
            service.result()
        table = Table(**json.loads(endpoints.read_text()))
        try:
            yield table
        finally:
            await table.close()
            stop.set()
            await asyncio.wait_for(service, WAIT_SECONDS)

    return run


@pytest.fixture
def training(served: Callable[..., Any]) -> Any:
    """`async with training(**spec) as (table, players, tasks)`: everybody has its first TRAIN."""

    @asynccontextmanager
    async def run(*names: str, arrays: Any = None, lease_seconds: int = 20, **spec: Any) -> Any:
        names = names or ("a-0",)
        spec.setdefault("learnerGroups", [{"name": "a", "replicas": len(names)}])
        async with served(lease_seconds=lease_seconds, **spec) as table:
            more = {} if arrays is None else {"arrays": arrays, "frozen": ()}
            players = [table.player(name, **more) for name in names]
            for player in players:
                await player.enter()
            await players[0].delivers(await players[0].task("INITIALISE"))
            yield table, players, [await player.task("TRAIN") for player in players]

    return run


@dataclass
class ControllerProcess:
    """`python -m metisfl_controller` on one state directory; it may be started again and again."""

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    tables: list[Table] = field(default_factory=list)

    async def start(self) -> Table:
        endpoints = self.folder / "endpoints.json"
        endpoints.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [sys.executable, "-m", "metisfl_controller"],
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
                | self.environment,
                stderr=log,
                start_new_session=True,
            )
        await until(lambda: endpoints.exists() or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, self.log
        self.tables.append(table := Table(**json.loads(endpoints.read_text())))
        return table

    async def kill(self) -> None:
        await self.stop(signal.SIGKILL)

    async def stop(self, signum: int = signal.SIGTERM) -> int:
        """Signal the process and return its exit status."""
        assert self.process is not None
        self.process.send_signal(signum)
        return await until_exit(self.process)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


async def until_exit(process: subprocess.Popen[bytes]) -> int:
    await until(lambda: process.poll() is not None)
    assert process.returncode is not None
    return process.returncode


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Callable[..., ControllerProcess]]:
    """`controller(**spec)` makes one, `await .start()` starts it; what still runs at the end is killed."""
    made: list[ControllerProcess] = []

    def make(**spec: Any) -> ControllerProcess:
        made.append(one := ControllerProcess(tmp_path, environment(tmp_path, spec)))
        return one

    yield make
    for one in made:
        for table in one.tables:
            await table.close()
        if one.process is not None and one.process.poll() is None:
            await one.kill()


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a controller for a federation in this test's folder."""
    return lambda spec=None, **settings: environment(tmp_path, spec or {}, **settings)

"""The load: one process with many learners that do no training. `python -m metisfl_bench.load` with a JSON argument.

It speaks the wire as any learner does, and does as little else as it can: uploads are encoded once and shared, and
downloads are counted and thrown away.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from metisfl.allocator import keep_chunk_memory
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import rpc
from metisfl.wire.layout import Layout
from metisfl.wire.limits import PROTOCOL_VERSION
from metisfl.wire.transport import Transport, supported_codecs, supported_compressions
from metisfl_bench.certificates import enrolled_channel
from metisfl_bench.layouts import LAYOUTS
from metisfl_bench.payload import Payload, update, whole_model
from metisfl_learner.transfers import KeptStream

GROUP = "load"

FINISH = pb.DownloadResponse(finish=model_pb2.Finish(section_checksums=[1])).SerializeToString()[:1]
"""What the last message of a download begins with."""

JOINING = 32
"""Learners of one process that connect at a time: thousands at once would overrun the listening socket's queue."""


@dataclass(frozen=True)
class Load:
    """Which learners this process is. `shared_connection`: all of them use one, as gRPC does by default in a process;
    otherwise each has its own. After `last_round` learners do nothing more and stay connected."""

    controller: str
    first: int
    count: int
    layout: str
    parameters: int
    shared_connection: bool
    last_round: int | None = None
    tls_dir: str | None = None
    """What to enrol with; each learner has a certificate, and so a connection, of its own."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class LoadLearner:
    """One of the learners."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        ordinal: int,
        layout: Layout,
        payloads: Payloads,
        last_round: int | None = None,
    ) -> None:
        self._join = rpc.JOIN.stub(channel)
        self._tasks = rpc.TASKS.stub(channel)
        # What arrives is counted, and nothing more.
        undecoded = channel.stream_stream(rpc.DOWNLOAD.path, request_serializer=rpc.DOWNLOAD.encode_request)
        self._downloads = KeptStream(undecoded)
        self._uploads = KeptStream(rpc.UPLOAD.stub(channel))
        self._ordinal = ordinal
        self._layout = layout
        self._payloads = payloads
        self._last_round = last_round
        self._lease = ""

    async def join(self) -> None:
        """Connect, and agree on how models travel."""
        request = pb.JoinRequest(
            protocol_version=PROTOCOL_VERSION,
            group=GROUP,
            ordinal=self._ordinal,
            framework="load",
            codecs=supported_codecs(),
            compressions=supported_compressions(),
        )
        terms = await self._join(request, timeout=120)
        self._lease = terms.lease.id
        self._payloads.agree(Transport.of(terms))

    async def work(self) -> None:
        """From Ready to STOP."""
        tasks = self._tasks()
        ready = pb.Ready(lease_id=self._lease, train_examples=100, test_examples=10, layout=self._layout.to_proto())
        await tasks.write(pb.LearnerMessage(ready=ready))
        async for task in tasks:
            if task.kind == pb.TASK_KIND_STOP:
                return
            if self._last_round is not None and task.round > self._last_round:
                continue
            if task.kind == pb.TASK_KIND_INITIALISE:
                await self._deliver(task, self._payloads.whole, pb.TrainingReport())
            elif task.kind == pb.TASK_KIND_TRAIN:
                await self._fetch(task)
                if task.evaluate:
                    await tasks.write(self._evaluation(task))
                report = pb.TrainingReport(examples=100 + self._ordinal, batches=1, epochs=1, seconds=0.001)
                await self._deliver(task, self._payloads.trained, report)
            elif task.kind == pb.TASK_KIND_EVALUATE:
                await tasks.write(self._evaluation(task))

    async def _fetch(self, task: pb.Task) -> None:
        await self._downloads.transfer(lambda call: self._receive(call, task))

    async def _receive(self, call: Any, task: pb.Task) -> None:
        received = 0
        request = pb.DownloadRequest(
            lease_id=self._lease, model_version=task.model_version, codec=self._payloads.download_codec
        )
        await call.write(request)
        while (message := await call.read()) is not grpc.aio.EOF and not message.startswith(FINISH):
            received += len(message)
        if received < self._payloads.download_bytes:
            raise RuntimeError(
                f"version {task.model_version}: {received} bytes of {self._payloads.download_bytes} came"
            )

    async def _deliver(self, task: pb.Task, payload: Payload, report: pb.TrainingReport) -> None:
        header = pb.UploadHeader(
            lease_id=self._lease,
            task_id=task.task_id,
            kind=payload.kind,
            base_version=task.model_version,
            sections=[payload.section],
            report=report,
        )
        await self._uploads.transfer(lambda call: self._send(call, header, payload))

    async def _send(self, call: Any, header: pb.UploadHeader, payload: Payload) -> None:
        await call.write(pb.UploadRequest(header=header))
        reply = await call.read()
        if not reply.HasField("grant"):
            raise RuntimeError(f"no grant came: {reply}")
        for message in payload.messages():
            await call.write(message)
        reply = await call.read()
        if reply.receipt.outcome != pb.OUTCOME_ACCEPTED:
            raise RuntimeError(f"the upload was not accepted: {reply}")

    def _evaluation(self, task: pb.Task) -> pb.LearnerMessage:
        metric = model_pb2.Metric(name="accuracy", value=0.5)
        evaluation = pb.Evaluation(
            task_id=task.task_id, model_version=task.model_version, examples=10, metrics=[metric]
        )
        return pb.LearnerMessage(evaluation=evaluation)


class Payloads:
    """What is uploaded, once it is agreed on how."""

    def __init__(self, layout: Layout) -> None:
        self.whole = whole_model(layout)
        self.trained = self.whole
        self.download_codec: model_pb2.Codec.ValueType = model_pb2.CODEC_FLOAT32
        self.download_bytes = layout.nbytes
        self._layout = layout
        self._agreed: Transport | None = None

    def agree(self, transport: Transport) -> None:
        """The controller says the same to every learner."""
        if self._agreed is not None:
            return
        self._agreed = transport
        if not transport.codec.lossless:
            self.trained = update(transport.upload(self._layout), self.whole.content)
        download = transport.download(self._layout)
        self.download_codec = download.codec.number
        self.download_bytes = download.nbytes if transport.packer is None else 0


async def _channel(load: Load, ordinal: int) -> grpc.aio.Channel:
    options = [*rpc.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", int(not load.shared_connection))]
    if load.tls_dir is None:
        return grpc.aio.insecure_channel(load.controller, options=options)
    return await enrolled_channel(load.controller, Path(load.tls_dir), ordinal, options)


async def run(load: Load) -> None:
    """All learners until STOP. Raises what one of them raises."""
    layout = LAYOUTS[load.layout](load.parameters)
    payloads = Payloads(layout)
    joining = asyncio.Semaphore(JOINING)
    gc.collect()
    gc.freeze()

    async def live(ordinal: int) -> None:
        async with joining:
            channel = await _channel(load, ordinal)
            learner = LoadLearner(channel, ordinal, layout, payloads, load.last_round)
            await learner.join()
        async with channel:
            await learner.work()

    async with asyncio.TaskGroup() as group:
        for number in range(load.count):
            group.create_task(live(load.first + number))


def main() -> None:
    keep_chunk_memory(one_arena=True)
    uvloop.run(run(Load(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()

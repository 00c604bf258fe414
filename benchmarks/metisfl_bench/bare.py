"""A server that answers a load's calls and does nothing else: what gRPC itself makes of the same messages.

`python -m metisfl_bench.bare` with a JSON argument serves one load from Join to STOP. It prints its port, and when all
rounds are over the seconds of each. Nothing that arrives is parsed; messages are counted to know when a call ends.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import grpc.aio
import uvloop

from metisfl.allocator import keep_chunk_memory
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames, rpc
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.sections import MODEL_SECTION
from metisfl.wire.transport import Transport
from metisfl_bench.layouts import LAYOUTS
from metisfl_bench.payload import whole_model

STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Bare:
    """How many learners are waited for, and what each of them gets in every round."""

    learners: int
    rounds: int
    layout: str
    parameters: int
    codec: str = "Float32"

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class BareServer:
    """The same calls with the same answers as the controller's, without a state to speak of."""

    def __init__(self, bare: Bare) -> None:
        self._bare = bare
        self._outboxes: list[asyncio.Queue[bytes]] = []
        self._uploads = 0
        self._starts: list[float] = []
        self._left = 0
        self.over = asyncio.Event()
        layout, transport = LAYOUTS[bare.layout](bare.parameters), Transport(Codec(bare.codec))
        self._down = _download(transport.download(layout), whole_model(layout).content)
        self._upload_chunks = -(-transport.upload(layout).nbytes // CHUNK_BYTES)
        terms = pb.JoinResponse(learner_id="load", lease=pb.Lease(id="bare", seconds=7200, heartbeat_seconds=7200))
        transport.tell(terms)
        self._terms = terms.SerializeToString()
        self._grant = pb.UploadResponse(grant=pb.Grant(offsets=[0])).SerializeToString()
        receipt = pb.Receipt(outcome=pb.OUTCOME_ACCEPTED)
        self._receipt = pb.UploadResponse(receipt=receipt).SerializeToString()

    @property
    def seconds(self) -> list[float]:
        """Of each round, to the start of the next."""
        return [after - before for before, after in itertools.pairwise(self._starts)]

    def handler(self) -> grpc.GenericRpcHandler:
        """Bytes in, bytes out: without serialisers."""
        calls = {
            rpc.JOIN.name: grpc.unary_unary_rpc_method_handler(self._join),
            rpc.TASKS.name: grpc.stream_stream_rpc_method_handler(self._tasks),
            rpc.DOWNLOAD.name: grpc.stream_stream_rpc_method_handler(self._model),
            rpc.UPLOAD.name: grpc.stream_stream_rpc_method_handler(self._upload),
        }
        return grpc.method_handlers_generic_handler(rpc.SERVICE, calls)

    async def _join(self, request: bytes, context: Any) -> bytes:
        return self._terms

    async def _tasks(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await anext(messages)
        outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._outboxes.append(outbox)
        if len(self._outboxes) == self._bare.learners:
            self._begin()
        stop = pb.Task(kind=pb.TASK_KIND_STOP).SerializeToString()
        while (task := await outbox.get()) != stop:
            yield task
        self._left += 1
        if self._left == self._bare.learners:
            self.over.set()
        yield task

    async def _model(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for _ in requests:
            for message in self._down:
                await context.write(message)

    async def _upload(self, messages: AsyncIterator[bytes], context: Any) -> None:
        async for _ in messages:
            await context.write(self._grant)
            for _ in range(self._upload_chunks + 1):
                await anext(messages)
            # Before the receipt: whoever has it may hang up, and that ends this call wherever it stands.
            self._uploads += 1
            if self._uploads == self._bare.learners:
                self._begin()
            await context.write(self._receipt)

    def _begin(self) -> None:
        """Send out the next round's tasks, or the end."""
        self._uploads = 0
        self._starts.append(time.perf_counter())
        number = len(self._starts)
        task = pb.Task(task_id=f"bare.{number}", kind=pb.TASK_KIND_TRAIN, round=number, model_version=number - 1)
        if number > self._bare.rounds:
            task = pb.Task(kind=pb.TASK_KIND_STOP)
        message = task.SerializeToString()
        for outbox in self._outboxes:
            outbox.put_nowait(message)


def _download(encoding: Encoding, model: Buffer) -> list[bytes]:
    """Header, chunks, finish: the same objects for everybody, as the controller sends them."""
    content = encoding.encode(model).data
    header = pb.DownloadHeader(sections=[encoding.section(MODEL_SECTION)])
    finish = model_pb2.Finish(section_checksums=[frames.section_checksum(content)])
    return [
        pb.DownloadResponse(header=header).SerializeToString(),
        *frames.encode_section(0, content),
        pb.DownloadResponse(finish=finish).SerializeToString(),
    ]


async def serve(bare: Bare) -> None:
    """Until the last learner has been told to stop."""
    server = grpc.aio.server(options=rpc.SERVER_OPTIONS)
    behaviour = BareServer(bare)
    server.add_generic_rpc_handlers((behaviour.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.freeze()
    # As the controller does: thousands of streams are looked at for garbage too often otherwise.
    gc.set_threshold(50_000, 20, 50)
    print(port, flush=True)
    await behaviour.over.wait()
    print(json.dumps(behaviour.seconds), flush=True)
    await server.stop(grace=STOP_SECONDS)


def main() -> None:
    keep_chunk_memory(one_arena=True)
    uvloop.run(serve(Bare(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()

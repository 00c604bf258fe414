"""What gRPC itself can do: the same bytes in the same messages between two processes that do nothing else with them.

`python -m metisfl_bench.stream` is the server; the client is a process of its own too, as a round's load is.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from metisfl.allocator import keep_chunk_memory
from metisfl.wire import rpc
from metisfl.wire.limits import CHUNK_BYTES
from metisfl_bench.processes import BenchError, process

_DOWN, _UP = "/bench.Stream/Down", "/bench.Stream/Up"


@dataclass(frozen=True)
class Streams:
    """As many streams as a round has learners, each with as many bytes as its model, first down and then up. They stay
    open from one cycle to the next, as a learner's do."""

    count: int
    nbytes: int
    cycles: int
    shared_connection: bool


def measure(streams: Streams, directory: Path, seconds: float = 600.0) -> list[float]:
    """Seconds of every cycle: all downloads, then all uploads. Raises BenchError."""
    with process(["-m", "metisfl_bench.stream", "serve"], directory) as server:
        assert server.popen.stdout
        port = server.popen.stdout.readline().strip()
        server.check()
        arguments = ["-m", "metisfl_bench.stream", port, json.dumps(asdict(streams))]
        with process(arguments, directory) as client:
            assert client.popen.stdout
            line = client.popen.stdout.readline()
            client.wait(seconds)
            if not line:
                raise BenchError(f"the bare stream said nothing:\n{client.tail()}")
            measured: list[float] = json.loads(line)
            return measured


def bytes_per_second(streams: Streams, measured: list[float]) -> float:
    """Both directions together, by the median cycle; the first warms up."""
    return 2 * streams.count * streams.nbytes / statistics.median(measured[1:] or measured)


async def _serve() -> None:
    async def down(requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            for message in _messages(int(request)):
                await context.write(message)

    async def up(messages: AsyncIterator[bytes], context: Any) -> None:
        async for request in messages:
            missing = int(request)
            while missing:
                missing -= len(await anext(messages))
            await context.write(b"all")

    server = grpc.aio.server(options=rpc.SERVER_OPTIONS)
    handlers = {
        "Down": grpc.stream_stream_rpc_method_handler(down),
        "Up": grpc.stream_stream_rpc_method_handler(up),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Stream", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def _drive(port: str, streams: Streams) -> list[float]:
    options = [*rpc.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", int(not streams.shared_connection))]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(streams.count)]

    downs = [channel.stream_stream(_DOWN)() for channel in channels]
    ups = [channel.stream_stream(_UP)() for channel in channels]
    size = str(streams.nbytes).encode()

    async def down(call: Any) -> None:
        await call.write(size)
        missing = streams.nbytes
        while missing:
            missing -= len(await call.read())

    async def up(call: Any) -> None:
        await call.write(size)
        for message in _messages(streams.nbytes):
            await call.write(message)
        await call.read()

    gc.collect()
    gc.freeze()
    seconds = []
    for _ in range(streams.cycles):
        started = time.perf_counter()
        await asyncio.gather(*map(down, downs))
        await asyncio.gather(*map(up, ups))
        seconds.append(time.perf_counter() - started)
    for channel in channels:
        await channel.close()
    return seconds


_CHUNK = bytes(CHUNK_BYTES)


def _messages(nbytes: int) -> list[bytes]:
    """The very same objects each time, as a model's chunk messages are."""
    whole, rest = divmod(nbytes, CHUNK_BYTES)
    return [_CHUNK] * whole + ([_CHUNK[:rest]] if rest else [])


def main() -> None:
    keep_chunk_memory(one_arena=True)
    if sys.argv[1] == "serve":
        uvloop.run(_serve())
    else:
        print(json.dumps(uvloop.run(_drive(sys.argv[1], Streams(**json.loads(sys.argv[2]))))), flush=True)


if __name__ == "__main__":
    main()

"""Thousands of calls at once: gRPC by itself cancels some that its server has not taken yet."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from metisfl.wire import rpc

CALLS = 4000


async def test_calls_that_arrive_at_once_wait_for_their_turn() -> None:
    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return request

    server = grpc.aio.server(options=rpc.SERVER_OPTIONS)
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Many", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=rpc.CHANNEL_OPTIONS) as channel:
            call = channel.unary_unary("/test.Many/Call")
            await call(b"")
            # All are sent before this event loop, which is the server's as well, takes the first.
            answers = await asyncio.gather(*(call(str(number).encode()) for number in range(CALLS)))
    finally:
        await server.stop(None)
    assert answers == [str(number).encode() for number in range(CALLS)]

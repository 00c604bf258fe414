"""What calls and transfers begin with: a message in time, a lease that holds, and a status for what is neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from metisfl_controller.conductor.conductor import Conductor
from metisfl_controller.security.gate import Gate, NotAdmittedError
from metisfl_controller.state.registry import Learner, UnknownLeaseError

STALLED_SECONDS = 60.0
"""A stream that is expected to say something and is silent for this long is broken off."""

IDLE_SECONDS = 240.0
"""A stream of models stays open between two of them, since opening one takes longer than a small model does. Not for
longer than this, as many proxies break off what has been silent for five minutes."""

M = TypeVar("M")

Context: TypeAlias = grpc.aio.ServicerContext


async def first_message(messages: AsyncIterator[M], context: Context) -> M:
    try:
        async with asyncio.timeout(STALLED_SECONDS):
            return await anext(messages)
    except (StopAsyncIteration, TimeoutError):
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the stream ended or stalled before its first message")
    except DecodeError as error:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def next_message(messages: AsyncIterator[M], context: Context) -> M | None:
    """What the next transfer on a stream begins with; None when there is none, or none for now."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            return await anext(messages)
    except (StopAsyncIteration, TimeoutError):
        return None
    except DecodeError as error:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def holder(conductor: Conductor, gate: Gate, lease: str, context: Context) -> Learner:
    """The learner that has this lease; the call is aborted when nobody has, or when the caller is somebody else."""
    try:
        learner = conductor.registry.holder(lease, conductor.clock())
    except UnknownLeaseError as error:
        await abort(context, grpc.StatusCode.UNAUTHENTICATED, str(error.args[0]))
    await admitted(gate, learner.id, context)
    return learner


async def admitted(gate: Gate, learner: str, context: Context) -> None:
    """Return when the caller may speak for this learner; otherwise the call is aborted."""
    try:
        gate.admit(learner, context)
    except NotAdmittedError as error:
        await abort(context, error.code, str(error))


async def abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort raises")

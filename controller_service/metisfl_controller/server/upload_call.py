"""The Upload call. Each upload is a header that is checked, a wait for room, a grant, chunks, and a receipt.

Until the grant nothing is read from the stream, and while chunks go to disk neither: whoever comes when there is no
room is slowed down, and never refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.frames import Chunk, ChunkFrame, FrameError, PackedChunk
from metisfl.wire.limits import MAX_ERROR_CHARACTERS
from metisfl_controller.conductor.conductor import Conductor
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.security.gate import Gate
from metisfl_controller.server.calls import STALLED_SECONDS, Context, abort, first_message, holder, next_message
from metisfl_controller.server.uploads import Upload, UploadError
from metisfl_controller.state.registry import Learner, UnknownLeaseError

LOOK_SECONDS = 1.0
"""How often an upload that waits for room is looked at: does it still count?"""

Message: TypeAlias = pb.UploadRequest | Chunk | FrameError
Messages: TypeAlias = AsyncIterator[Message]
Begin: TypeAlias = Callable[[Messages, Context], Awaitable[Message | None]]


class NoUseError(Exception):
    """The upload does not count any more, or not on this stream; the text says why."""


@dataclass(eq=False)
class Stream:
    """One attempt at an upload: by whom, and under which lease."""

    learner: Learner
    lease: str


class UploadCall:
    """Takes uploads in for a conductor."""

    def __init__(self, conductor: Conductor, gate: Gate) -> None:
        self._conductor = conductor
        self._gate = gate

    async def serve(self, messages: Messages, context: Context) -> None:
        begin: Begin = first_message
        while await self._one(begin, messages, context):
            begin = next_message

    async def _one(self, begin: Begin, messages: Messages, context: Context) -> bool:
        """Take one upload in; whether another may follow on this stream. The header is read in here, so that nothing
        holds it, and a layout with it, while the stream is idle."""
        first = await begin(messages, context)
        if first is None:
            return False
        if not isinstance(first, pb.UploadRequest) or first.WhichOneof("part") != "header":
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "an upload must begin with its header")
        conductor, header = self._conductor, first.header
        stream = Stream(await holder(conductor, self._gate, header.lease_id, context), header.lease_id)
        task = await _task_of(header, stream.learner, context)
        if conductor.verdicts.was_accepted(task) or conductor.progress.counted.get(task.learner) == str(task):
            await context.write(self._receipt(pb.OUTCOME_DUPLICATE, "this task was accepted before"))
            return False
        if conductor.machine.will_expect(task):
            await abort(context, grpc.StatusCode.UNAVAILABLE, "the round has not begun yet; try again")
        if not conductor.machine.expects(task):
            await context.write(self._receipt(pb.OUTCOME_LATE, conductor.machine.why_late(task)))
            return False
        try:
            upload = conductor.uploads.begin(task, header, conductor.progress.uploads, stream)
        except UploadError as error:
            conductor.verdicts.rejected(task, str(error))
            await context.write(self._receipt(pb.OUTCOME_REJECTED, str(error)))
            return False
        whole = False
        try:
            if upload.verdict is None:
                await self._wait_for_room(upload, stream)
                await context.write(pb.UploadResponse(grant=pb.Grant(offsets=upload.arriving.offsets)))
                await self._receive(upload, stream, messages)
                whole = True
            outcome, message = await conductor.verdicts.verified(upload)
            await context.write(self._receipt(outcome, message))
        except NoUseError as error:
            await context.write(self._receipt(pb.OUTCOME_LATE, str(error)))
        except UnknownLeaseError as error:
            await abort(context, grpc.StatusCode.UNAUTHENTICATED, str(error.args[0]))
        except UploadError as error:
            await abort(context, grpc.StatusCode.DATA_LOSS, str(error))
        except TimeoutError:
            await abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing arrived for {STALLED_SECONDS:g} s")
        except OSError as error:
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"no room to stage the upload: {error}")
        finally:
            self._let_go(upload, stream)
        return whole

    async def _wait_for_room(self, upload: Upload, stream: Stream) -> None:
        """Return when bytes may come. Raises NoUseError, UnknownLeaseError, and OSError when there will be no room."""
        let_in = upload.place.let_in
        self._check(upload, stream)
        while not let_in.done():
            await asyncio.wait({let_in}, timeout=LOOK_SECONDS)
            self._check(upload, stream)
            # Its connection is open, and it waits because it is told to.
            stream.learner.last_seen = self._conductor.clock()
        let_in.result()
        await self._settled(upload)

    async def _receive(self, upload: Upload, stream: Stream, messages: Messages) -> None:
        """Take in chunks up to the finish. Raises TimeoutError when nothing comes, UploadError for what does not belong
        there, and what `_check` and the disk raise."""
        conductor = self._conductor
        async with asyncio.timeout(STALLED_SECONDS) as stall:
            async for message in messages:
                self._check(upload, stream)
                _put_off(stall)
                stream.learner.last_seen = conductor.clock()
                try:
                    if isinstance(message, PackedChunk):
                        message = await asyncio.to_thread(message.unpacked)
                        self._check(upload, stream)
                    if isinstance(message, ChunkFrame):
                        await upload.take(message)
                        conductor.metrics.received(message.payload)
                        continue
                    if isinstance(message, FrameError):
                        raise message
                    if message.WhichOneof("part") != "finish":
                        raise UploadError("a header comes once, as the first message")
                    upload.arriving.finish(message.finish)
                except (UploadError, FrameError) as error:
                    # What was damaged on the way may arrive whole the next time: the task stays open.
                    upload.arriving.start_again()
                    raise UploadError(str(error)) from error
                except OSError:
                    upload.arriving.start_again()
                    raise
                stall.reschedule(None)
                await self._settled(upload)
                return
        raise UploadError("the stream ended before the finish")

    def _check(self, upload: Upload, stream: Stream) -> None:
        if upload.stream is not stream:
            raise NoUseError("another stream has taken over this upload")
        if not self._conductor.verdicts.needs(upload.task):
            raise NoUseError(self._conductor.machine.why_late(upload.task))
        if stream.learner.lease != stream.lease:
            raise UnknownLeaseError("the lease has ended: join again")

    async def _settled(self, upload: Upload) -> None:
        """All that has arrived is where it should be. Raises OSError when the disk failed."""
        try:
            await upload.place.settled()
        except OSError:
            upload.arriving.start_again()
            raise

    def _let_go(self, upload: Upload, stream: Stream) -> None:
        """Leave a broken upload to be resumed, and free one that nobody waits for."""
        if upload.stream is not stream:
            return
        if upload.verdict is None:
            self._conductor.uploads.leave_to_be_resumed(upload)
        upload.stream = None
        if not self._conductor.verdicts.needs(upload.task):
            self._conductor.uploads.drop(upload)

    def _receipt(self, outcome: pb.Outcome.ValueType, message: str) -> pb.UploadResponse:
        self._conductor.metrics.upload(pb.Outcome.Name(outcome).removeprefix("OUTCOME_").lower())
        return pb.UploadResponse(receipt=pb.Receipt(outcome=outcome, message=message[:MAX_ERROR_CHARACTERS]))


def _put_off(stall: asyncio.Timeout) -> None:
    """Something came. Setting a timer anew costs as much as a chunk's bookkeeping, so that is not done for each."""
    now, when = asyncio.get_running_loop().time(), stall.when()
    if when is not None and when < now + STALLED_SECONDS * 59 / 60:
        stall.reschedule(now + STALLED_SECONDS)


async def _task_of(header: pb.UploadHeader, learner: Learner, context: Context) -> TaskId:
    try:
        task = TaskId.parse(header.task_id)
    except ValueError as error:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
    if task.learner != learner.id:
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, f"the task belongs to {task.learner}")
    if task.base_version != header.base_version:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "base_version is not the task's")
    return task

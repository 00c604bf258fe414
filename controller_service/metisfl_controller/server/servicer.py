"""The gRPC side: checks what comes in, hands it to the conductor, maps errors to status codes.

INVALID_ARGUMENT and FAILED_PRECONDITION mean that trying again will not help; UNAUTHENTICATED means join again;
NOT_FOUND on a download means that the task is over; DATA_LOSS on an upload means send it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.frames import ChunkFrame, FrameError
from metisfl.wire.layout import Layout, LayoutError
from metisfl.wire.limits import MAX_ERROR_CHARACTERS, MAX_HELD_TASKS, PROTOCOL_VERSION
from metisfl_controller.conductor.attendance import StreamRefusedError, TaskStream
from metisfl_controller.conductor.conductor import Conductor
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.server.uploads import Upload, UploadError, check_evaluation
from metisfl_controller.state.registry import JoinRefusedError, Learner, UnknownLeaseError

STALLED_SECONDS = 60.0
"""An upload that sends nothing for this long is broken off; it can be resumed."""

M = TypeVar("M")

Context: TypeAlias = grpc.aio.ServicerContext
UploadMessages: TypeAlias = AsyncIterator[pb.UploadRequest | ChunkFrame | FrameError]

_ACTIVITIES = {
    pb.ACTIVITY_IDLE: "Idle",
    pb.ACTIVITY_DOWNLOADING: "Downloading",
    pb.ACTIVITY_EVALUATING: "Evaluating",
    pb.ACTIVITY_TRAINING: "Training",
    pb.ACTIVITY_UPLOADING: "Uploading",
    pb.ACTIVITY_INITIALISING: "Initialising",
}


class HungUpError(Exception):
    """The learner closed its side of the task stream."""


class Servicer:
    """The five calls of `metisfl.v1.Controller`."""

    def __init__(self, conductor: Conductor, log: ContextLogger) -> None:
        self._conductor = conductor
        self._log = log

    # ---- Join and Leave

    async def join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        if request.protocol_version != PROTOCOL_VERSION:
            await _abort(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this controller speaks protocol version {PROTOCOL_VERSION}, the learner {request.protocol_version}: "
                "use learner and controller images of one release",
            )
        if model_pb2.CODEC_FLOAT32 not in request.codecs:
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, "the learner must support codec Float32")
        try:
            learner = self._conductor.attendance.join(request)
        except JoinRefusedError as error:
            self._log.warning("join refused: %s", error, extra={"peer": context.peer()})
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return pb.JoinResponse(
            learner_id=learner.id,
            lease=pb.Lease(
                id=learner.lease,
                seconds=int(self._conductor.registry.lease_seconds),
                heartbeat_seconds=self._conductor.registry.heartbeat_seconds,
            ),
            parameters=learner.parameters,
            partition=pb.Partition(index=learner.partition, count=self._conductor.registry.plan.count),
            federation=self._conductor.federation.metadata.name,
            federation_uid=self._conductor.uid,
            codec=model_pb2.CODEC_FLOAT32,
        )

    async def leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        learner = await self._holder(request.lease_id, context)
        self._conductor.attendance.leave(learner, request.error[:MAX_ERROR_CHARACTERS])
        return pb.LeaveResponse()

    # ---- Tasks

    async def tasks(self, messages: AsyncIterator[pb.LearnerMessage], context: Context) -> AsyncIterator[pb.Task]:
        stream = await self._open(messages, context)
        reader = asyncio.ensure_future(self._read(stream, messages))
        try:
            while isinstance(item := await stream.outbox.get(), pb.Task):
                yield item
            match item:
                case HungUpError():
                    return
                case StreamRefusedError():
                    await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(item))
                case UploadError():
                    await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(item))
                case _:
                    await _abort(context, grpc.StatusCode.UNAUTHENTICATED, f"the lease has ended: {item}")
        finally:
            reader.cancel()
            self._conductor.attendance.close_stream(stream)

    async def _open(self, messages: AsyncIterator[pb.LearnerMessage], context: Context) -> TaskStream:
        first = await _first(messages, context)
        if first.WhichOneof("message") != "ready":
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message of Tasks must be Ready")
        ready = first.ready
        learner = await self._holder(ready.lease_id, context)
        if len(ready.held_tasks) > MAX_HELD_TASKS:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"more than {MAX_HELD_TASKS} held tasks")
        try:
            return self._conductor.attendance.open_stream(learner, ready, self._layout(ready))
        except LayoutError as error:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"the learner's model: {error}")
        except StreamRefusedError as error:
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))

    def _layout(self, ready: pb.Ready) -> Layout:
        known = self._conductor.progress.layout
        return known if known and known.is_described_by(ready.layout) else Layout.from_proto(ready.layout)

    async def _read(self, stream: TaskStream, messages: AsyncIterator[pb.LearnerMessage]) -> None:
        """Take in what the learner says; how that ended goes to the stream's outbox."""
        lease = stream.learner.lease
        end: Exception = HungUpError()
        try:
            async for message in messages:
                self._take(self._conductor.registry.holder(lease, self._conductor.clock()), message)
        except (UnknownLeaseError, UploadError) as error:
            end = error
        except DecodeError as error:
            end = UploadError(str(error))
        stream.outbox.put_nowait(end)

    def _take(self, learner: Learner, message: pb.LearnerMessage) -> None:
        match message.WhichOneof("message"):
            case "heartbeat":
                learner.activity = _ACTIVITIES.get(message.heartbeat.activity, "Idle")
                learner.progress = min(1.0, max(0.0, message.heartbeat.progress))
            case "evaluation":
                check_evaluation(message.evaluation)
                self._conductor.evaluated(learner, message.evaluation)
            case "failure":
                message.failure.message = message.failure.message[:MAX_ERROR_CHARACTERS]
                self._conductor.failed(learner, message.failure)
            case _:
                raise UploadError("Ready comes once, as the first message")

    # ---- Download

    async def download(
        self, request: pb.DownloadRequest, context: Context
    ) -> AsyncIterator[pb.DownloadResponse | bytes]:
        await self._holder(request.lease_id, context)
        model = self._conductor.progress.model
        if model is None or model.version != request.model_version:
            current = "there is none" if model is None else f"the current one is {model.version}"
            await _abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                f"model version {request.model_version} is not served; {current}",
            )
        if request.codec != model_pb2.CODEC_FLOAT32:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"codec {request.codec} was not agreed on at Join")
        offset = request.offsets[0] if request.offsets else 0
        if len(request.offsets) > 1 or not frames.is_border(offset, model.layout.nbytes):
            await _abort(
                context,
                grpc.StatusCode.OUT_OF_RANGE,
                f"offsets {list(request.offsets)[:5]} are not a border between chunks of one section of "
                f"{model.layout.nbytes} bytes",
            )
        async for message in model.stream(offset, self._conductor.metrics.sent):
            yield message

    # ---- Upload

    async def upload(self, messages: UploadMessages, context: Context) -> AsyncIterator[pb.UploadResponse]:
        first = await _first(messages, context)
        if not isinstance(first, pb.UploadRequest) or first.WhichOneof("part") != "header":
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message of Upload must be a header")
        learner = await self._holder(first.header.lease_id, context)
        task = await self._task_of(first.header, learner, context)
        if self._conductor.verdicts.was_accepted(task):
            yield self._receipt(pb.OUTCOME_DUPLICATE, "this task was accepted before")
            return
        if self._conductor.machine.will_expect(task):
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "the round has not begun yet; try again")
        if not self._conductor.machine.expects(task):
            yield self._receipt(pb.OUTCOME_LATE, "the round has closed, or the task is not known any more")
            return
        stream = object()
        try:
            upload = self._conductor.uploads.begin(task, first.header, self._conductor.progress.layout, stream)
        except UploadError as error:
            self._conductor.verdicts.rejected(task, str(error))
            yield self._receipt(pb.OUTCOME_REJECTED, str(error))
            return
        except OSError as error:
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"no room to stage the upload: {error}")
        try:
            if upload.verdict is None:
                yield pb.UploadResponse(grant=pb.Grant(offsets=[upload.arriving.received]))
                outcome, message = await self._receive(upload, stream, learner, messages)
            else:
                outcome, message = await self._conductor.verdicts.verified(upload)
            yield self._receipt(outcome, message)
        except UploadError as error:
            await _abort(context, grpc.StatusCode.DATA_LOSS, str(error))
        except TimeoutError:
            await _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing arrived for {STALLED_SECONDS:g} s")
        finally:
            self._let_go(upload, stream)

    async def _task_of(self, header: pb.UploadHeader, learner: Learner, context: Context) -> TaskId:
        try:
            task = TaskId.parse(header.task_id)
        except ValueError as error:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if task.learner != learner.id:
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, f"the task belongs to {task.learner}")
        if task.base_version != header.base_version:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "base_version is not the task's")
        return task

    async def _receive(
        self, upload: Upload, stream: object, learner: Learner, messages: UploadMessages
    ) -> tuple[pb.Outcome.ValueType, str]:
        """Take in chunks up to the finish and have the whole judged. Raises TimeoutError when nothing comes and
        UploadError for what does not belong there."""
        conductor, loop = self._conductor, asyncio.get_running_loop()
        async with asyncio.timeout(STALLED_SECONDS) as stall:
            async for message in messages:
                if upload.stream is not stream:
                    return pb.OUTCOME_LATE, "another stream has taken over this upload"
                if not conductor.machine.expects(upload.task):
                    return pb.OUTCOME_LATE, "the round has closed"
                stall.reschedule(loop.time() + STALLED_SECONDS)
                learner.last_seen = conductor.clock()
                try:
                    if isinstance(message, FrameError):
                        raise message
                    if isinstance(message, ChunkFrame):
                        upload.take(message)
                        conductor.metrics.received(len(message.data))
                        continue
                    if message.WhichOneof("part") != "finish":
                        raise UploadError("a header comes once, as the first message")
                    upload.arriving.finish(message.finish)
                except (UploadError, FrameError) as error:
                    # What was damaged on the way may arrive whole the next time: the task stays open.
                    upload.arriving.start_again()
                    raise UploadError(str(error)) from error
                stall.reschedule(None)
                return await conductor.verdicts.verified(upload)
        raise UploadError("the stream ended before the finish")

    def _let_go(self, upload: Upload, stream: object) -> None:
        """Leave a broken upload to be resumed, and free one that nobody waits for."""
        if upload.stream is stream:
            upload.stream = None
            if not self._conductor.verdicts.needs(upload.task):
                self._conductor.uploads.drop(upload)

    def _receipt(self, outcome: pb.Outcome.ValueType, message: str) -> pb.UploadResponse:
        self._conductor.metrics.upload(pb.Outcome.Name(outcome).removeprefix("OUTCOME_").lower())
        return pb.UploadResponse(receipt=pb.Receipt(outcome=outcome, message=message[:MAX_ERROR_CHARACTERS]))

    async def _holder(self, lease: str, context: Context) -> Learner:
        try:
            return self._conductor.registry.holder(lease, self._conductor.clock())
        except UnknownLeaseError as error:
            await _abort(context, grpc.StatusCode.UNAUTHENTICATED, str(error.args[0]))


async def _first(messages: AsyncIterator[M], context: Context) -> M:
    try:
        async with asyncio.timeout(STALLED_SECONDS):
            return await anext(messages)
    except (StopAsyncIteration, TimeoutError):
        await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the stream ended or stalled before its first message")
    except DecodeError as error:
        await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def _abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort raises")

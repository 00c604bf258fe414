"""The gRPC side: checks what comes in, hands it to the conductor, maps errors to status codes.

INVALID_ARGUMENT and FAILED_PRECONDITION mean that trying again will not help; UNAUTHENTICATED means join again;
NOT_FOUND on a download means that the task is over; DATA_LOSS on an upload means send it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from google.protobuf.message import DecodeError

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.layout import Layout, LayoutError
from metisfl.wire.limits import MAX_ERROR_CHARACTERS, MAX_HELD_TASKS, PROTOCOL_VERSION
from metisfl_controller.conductor.attendance import StreamRefusedError, TaskStream
from metisfl_controller.conductor.conductor import Conductor
from metisfl_controller.security.audit import Action, Audit
from metisfl_controller.security.gate import Gate, NotAdmittedError
from metisfl_controller.server.calls import Context, abort, admitted, first_message, holder, next_message
from metisfl_controller.server.downloads import RetiredError
from metisfl_controller.server.uploads import UploadError, check_evaluation
from metisfl_controller.state.records import StateError
from metisfl_controller.state.registry import JoinRefusedError, Learner, UnknownLeaseError

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
    """The calls of `metisfl.v1.Controller` but for Enroll and Upload, which have files of their own."""

    def __init__(self, conductor: Conductor, gate: Gate, audit: Audit) -> None:
        self._conductor = conductor
        self._gate = gate
        self._audit = audit

    # ---- Join and Leave

    async def join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        if request.protocol_version != PROTOCOL_VERSION:
            await abort(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this controller speaks protocol version {PROTOCOL_VERSION}, the learner {request.protocol_version}: "
                "use learner and controller images of one release",
            )
        name = f"{request.group}-{request.ordinal}"
        await admitted(self._gate, name, context)
        try:
            learner = self._conductor.attendance.join(request)
        except JoinRefusedError as error:
            self._audit.record(Action.JOIN_REFUSED, name, context.peer(), str(error))
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        self._audit.record(Action.JOINED, name, context.peer())
        terms = pb.JoinResponse(
            learner_id=learner.id,
            lease=pb.Lease(
                id=learner.lease,
                seconds=int(self._conductor.registry.lease_seconds),
                heartbeat_seconds=self._conductor.registry.heartbeat_seconds,
            ),
            parameters=learner.parameters,
            partition=pb.Partition(index=learner.partition, count=learner.partitions),
            federation=self._conductor.federation.metadata.name,
            federation_uid=self._conductor.uid,
            evaluator=learner.evaluator,
        )
        self._conductor.transport.tell(terms)
        return terms

    async def leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        learner = await holder(self._conductor, self._gate, request.lease_id, context)
        self._conductor.attendance.leave(learner, request.error[:MAX_ERROR_CHARACTERS])
        return pb.LeaveResponse()

    # ---- Tasks

    async def tasks(self, messages: AsyncIterator[pb.LearnerMessage], context: Context) -> AsyncIterator[pb.Task]:
        stream = await self._open(messages, context)
        reader = asyncio.ensure_future(self._read(stream, messages, context))
        try:
            while isinstance(item := await stream.outbox.get(), pb.Task):
                yield item
            match item:
                case HungUpError():
                    return
                case StreamRefusedError():
                    await abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(item))
                case UploadError():
                    await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(item))
                case NotAdmittedError():
                    await abort(context, item.code, str(item))
                case _:
                    await abort(context, grpc.StatusCode.UNAUTHENTICATED, f"the lease has ended: {item}")
        finally:
            reader.cancel()
            self._conductor.attendance.close_stream(stream)

    async def _open(self, messages: AsyncIterator[pb.LearnerMessage], context: Context) -> TaskStream:
        first = await first_message(messages, context)
        if first.WhichOneof("message") != "ready":
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message of Tasks must be Ready")
        ready = first.ready
        learner = await holder(self._conductor, self._gate, ready.lease_id, context)
        if len(ready.held_tasks) > MAX_HELD_TASKS:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"more than {MAX_HELD_TASKS} held tasks")
        try:
            return self._conductor.attendance.open_stream(learner, ready, Layout.from_proto(ready.layout))
        except LayoutError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"the learner's model: {error}")
        except StreamRefusedError as error:
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))

    async def _read(self, stream: TaskStream, messages: AsyncIterator[pb.LearnerMessage], context: Context) -> None:
        """Take in what the learner says; how that ended goes to the stream's outbox."""
        lease = stream.learner.lease
        end: Exception = HungUpError()
        try:
            async for message in messages:
                learner = self._conductor.registry.holder(lease, self._conductor.clock())
                # Again: streams outlive certificates.
                self._gate.admit(learner.id, context)
                self._take(learner, message)
        except (UnknownLeaseError, UploadError, NotAdmittedError) as error:
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

    async def download(self, requests: AsyncIterator[pb.DownloadRequest], context: Context) -> None:
        request: pb.DownloadRequest | None = await first_message(requests, context)
        while request is not None:
            await self._send(request, context)
            request = await next_message(requests, context)

    async def _send(self, request: pb.DownloadRequest, context: Context) -> None:
        learner = await holder(self._conductor, self._gate, request.lease_id, context)
        try:
            model = await self._conductor.served.of(request.model_version)
        except (StateError, OSError) as error:
            await abort(context, grpc.StatusCode.NOT_FOUND, str(error))
        if model is None:
            latest = self._conductor.progress.latest
            current = "there is none" if latest is None else f"the current one is {latest.version}"
            await abort(
                context,
                grpc.StatusCode.NOT_FOUND,
                f"model version {request.model_version} is not served; {current}",
            )
        encoding = model.sections.model
        if request.codec != encoding.codec.number:
            await abort(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                f"codec {request.codec} was not agreed on at Join: models go down in {encoding.codec}",
            )
        if problem := model.problem(request.offsets):
            await abort(context, grpc.StatusCode.OUT_OF_RANGE, problem)
        try:
            async for message in model.stream(request.offsets, self._conductor.metrics.sent):
                if learner.lease != request.lease_id:
                    # It may have been revoked meanwhile.
                    await abort(context, grpc.StatusCode.UNAUTHENTICATED, "the lease has ended: join again")
                await context.write(message)
        except RetiredError as error:
            await abort(context, grpc.StatusCode.UNAVAILABLE, str(error))

"""The work under way: at most one task in the learner's thread, and the uploads of finished ones.

The task under way does not depend on the Tasks stream: while that is broken it goes on, and its download tries again
until it succeeds, the controller discards the task, or the session gives the controller up. Uploads do depend on it: a
controller that comes back decides by what Ready tells it which results it still wants, and asks for those.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, assert_never

import grpc
import grpc.aio

from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.limits import MAX_ERROR_CHARACTERS
from metisfl_learner import work
from metisfl_learner.checks import LearnerError
from metisfl_learner.client import ControllerClient
from metisfl_learner.exits import ExitCode, FatalError
from metisfl_learner.fates import Fates
from metisfl_learner.learner import Progress, TaskCancelled
from metisfl_learner.lease import Lease
from metisfl_learner.outbox import Outbox
from metisfl_learner.retry import REFUSALS, Backoff
from metisfl_learner.task_loop import Accepted, Action, Answer, Cancel, Forget, Note, Send, Start, Stop, TaskLoop
from metisfl_learner.transfers import Download, TransferError
from metisfl_learner.work import Received, Result, Trainee
from metisfl_learner.worker import Worker

T = TypeVar("T")

FAILURE_SECONDS = 2.0
"""How long the report of a failure may take before the process ends anyway."""

# A transfer that failed like this will not succeed later; a lost lease and a lost connection are not among them.
_HOPELESS = REFUSALS | {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.ALREADY_EXISTS}


class _AbandonedError(Exception):
    """The controller refuses what this task needs; the message has its words."""


class _Job:
    """One task being worked on."""

    def __init__(self, task: pb.Task, log: ContextLogger) -> None:
        self.task = task
        self.log = log
        self.activity = pb.ACTIVITY_IDLE
        self.progress = Progress()
        self.fraction: Callable[[], float] = lambda: 0.0
        self.handle: asyncio.Task[None] | None = None


class Jobs:
    """Carries out what a TaskLoop decides, for one trainee."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        client: ControllerClient,
        worker: Worker,
        trainee: Trainee,
        lease: Lease,
        outbox: Outbox,
        log: ContextLogger,
    ) -> None:
        self.loop = TaskLoop()
        self._group = group
        self._client = client
        self._worker = worker
        self._trainee = trainee
        self._lease = lease
        self._outbox = outbox
        self._log = log
        self._job: _Job | None = None
        self._uploads: dict[str, asyncio.Task[None]] = {}
        self._fates = Fates(group, worker, trainee.encoder)
        self._connected = False

    @property
    def idle(self) -> bool:
        """Neither a task nor an upload is under way."""
        return self._job is None and not self._uploads

    def ready(self, lease_id: str) -> pb.LearnerMessage:
        """The first message of a new Tasks stream. Results that are finished from now on are sent at once."""
        self._connected = True
        held, running = self.loop.ready()
        description = self._trainee.description
        return pb.LearnerMessage(
            ready=pb.Ready(
                lease_id=lease_id,
                train_examples=description.train_examples,
                test_examples=description.test_examples,
                layout=description.layout.to_proto(),
                held_tasks=held,
                running_task=running,
            )
        )

    def disconnected(self) -> None:
        """The Tasks stream broke: what is not sent stays held until the controller asks for it."""
        self._connected = False
        self._cancel_uploads()

    def heartbeat(self) -> pb.LearnerMessage:
        """What is going on at this moment."""
        if self._job is not None:
            beat = pb.Heartbeat(
                activity=self._job.activity, task_id=self._job.task.task_id, progress=self._job.fraction()
            )
        elif self._uploads:
            beat = pb.Heartbeat(activity=pb.ACTIVITY_UPLOADING, task_id=min(self._uploads))
        else:
            beat = pb.Heartbeat(activity=pb.ACTIVITY_IDLE)
        return pb.LearnerMessage(heartbeat=beat)

    def act(self, actions: list[Action]) -> None:
        """Carry out decisions, in order. Stop is the session's to obey."""
        for action in actions:
            match action:
                case Start(task):
                    self._start(task)
                case Cancel(task_id, reason):
                    self._log.info("task %s is abandoned: %s", task_id, reason)
                    self._cancel_job()
                case Send(result):
                    self._send(result)
                case Accepted(task_id):
                    self._fates.accepted(task_id)
                case Forget(task_id, reason):
                    self._log.debug("result of task %s is let go: %s", task_id, reason)
                    self._fates.forgotten(task_id)
                    if task_id in self._uploads:
                        self._uploads.pop(task_id).cancel()
                case Answer(message):
                    self._outbox.put(message)
                case Note(text, warning):
                    (self._log.warning if warning else self._log.info)("%s", text)
                case Stop():
                    pass
                case _:
                    assert_never(action)

    def cancel_all(self) -> None:
        """Abandon the running task and all uploads."""
        self._fates.cancel()
        self._cancel_job()
        self._cancel_uploads()

    def _cancel_uploads(self) -> None:
        for upload in self._uploads.values():
            upload.cancel()
        self._uploads.clear()

    def _start(self, task: pb.Task) -> None:
        job = self._job = _Job(task, self._log.bind(round=task.round))
        job.handle = self._group.create_task(self._work(job))

    def _cancel_job(self) -> None:
        if self._job is not None:
            self._job.progress.cancel()
            if self._job.handle is not None:
                self._job.handle.cancel()
            self._job = None

    def _send(self, result: Result) -> None:
        if self._connected and result.task_id not in self._uploads:
            self._uploads[result.task_id] = self._group.create_task(self._upload(result))
            self._outbox.put(self.heartbeat())

    async def _work(self, job: _Job) -> None:
        try:
            await self._do(job)
        except LearnerError as error:
            await self._fail(job, error)
        except TaskCancelled:
            # Cancelling the job ends this coroutine; here the learner's code raised it on its own account.
            await self._fail(job, LearnerError("the learner's code cancelled a task that is still wanted"))
        except _AbandonedError as error:
            job.log.warning("task %s cannot be done: %s", job.task.task_id, error)
            self._outbox.put(_failure(job.task, str(error)))
        finally:
            self.loop.ended(job.task.task_id)
            if self._job is job:
                self._job = None
                self._outbox.put(self.heartbeat())

    async def _do(self, job: _Job) -> None:
        task, trainee = job.task, self._trainee
        if task.kind == pb.TASK_KIND_INITIALISE:
            self._now(job, pb.ACTIVITY_INITIALISING)
            job.log.info("making the initial model")
            self._finish(await self._worker.run(lambda: work.initialise(trainee, task)))
            return
        received = await self._download(job)
        if task.kind == pb.TASK_KIND_EVALUATE or task.evaluate:
            self._now(job, pb.ACTIVITY_EVALUATING)
            evaluation = await self._worker.run(lambda: work.evaluate(trainee, task, received.model))
            job.log.info("version %d: %s", task.model_version, _metrics(evaluation))
            self.act(self.loop.evaluated(evaluation))
        if task.kind == pb.TASK_KIND_TRAIN:
            self._now(job, pb.ACTIVITY_TRAINING, lambda: job.progress.fraction)
            result = await self._worker.run(lambda: work.train(trainee, task, received, job.progress))
            job.log.info(
                "trained %d batches of %d examples in %.2f s",
                result.report.batches,
                result.report.examples,
                result.report.seconds,
            )
            self._finish(result)

    def _finish(self, result: Result) -> None:
        self._job = None
        self.act(self.loop.trained(result))

    def _now(self, job: _Job, activity: pb.Activity.ValueType, fraction: Callable[[], float] = lambda: 0.0) -> None:
        job.activity, job.fraction = activity, fraction
        self._outbox.put(self.heartbeat())

    async def _download(self, job: _Job) -> Received:
        download = Download(job.task.model_version, self._trainee.encoder.downloads)
        self._now(job, pb.ACTIVITY_DOWNLOADING, lambda: download.fraction)
        await self._persistently(
            f"download of version {download.version}",
            lambda terms: self._client.download(terms.lease.id, download),
            job.log,
        )
        return await self._worker.run(download.received)

    async def _upload(self, result: Result) -> None:
        encoder = self._trainee.encoder
        try:
            receipt = await self._persistently(
                f"upload of task {result.task_id}",
                lambda terms: self._client.upload(terms.lease.id, result, encoder.transport.packer),
                self._log,
            )
            self._log.debug("upload of task %s: %s", result.task_id, pb.Outcome.Name(receipt.outcome))
            if encoder.remembers and receipt.outcome in (pb.OUTCOME_ACCEPTED, pb.OUTCOME_DUPLICATE):
                await asyncio.to_thread(encoder.accepted, result.task_id)
            self.act(self.loop.received(result.task_id, receipt))
        except _AbandonedError as error:
            rejected = pb.Receipt(outcome=pb.OUTCOME_REJECTED, message=str(error))
            self.act(self.loop.received(result.task_id, rejected))
        finally:
            if self._uploads.get(result.task_id) is asyncio.current_task():
                del self._uploads[result.task_id]
                self._outbox.put(self.heartbeat())

    async def _persistently(
        self, what: str, attempt: Callable[[pb.JoinResponse], Awaitable[T]], log: ContextLogger
    ) -> T:
        """Try a transfer until it succeeds; the controller's deadline for the round bounds how long that is."""
        backoff = Backoff(give_up_after=math.inf)
        while True:
            terms = await self._lease.terms()
            try:
                return await attempt(terms)
            except grpc.aio.AioRpcError as error:
                if error.code() in _HOPELESS:
                    raise _AbandonedError(f"{what}: {error.details()}") from error
                reason = f"{error.code().name}: {error.details()}"
            except TransferError as error:
                reason = str(error)
            except asyncio.CancelledError:
                # gRPC also raises this when the call's channel is closed, as it is for a renewed certificate.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                reason = "the connection was replaced"
            delay = backoff.delay() or 0.0
            log.warning("%s broke off, goes on in %.1f s: %s", what, delay, reason)
            await asyncio.sleep(delay)

    async def _fail(self, job: _Job, error: LearnerError) -> None:
        message = f"{error} (task of round {job.task.round})"
        job.log.error("the learner's code failed: %s", error, exc_info=error.__cause__)
        self._outbox.put(_failure(job.task, message))
        await self._outbox.sent(FAILURE_SECONDS)
        await self._leave(message)
        raise FatalError(ExitCode.LEARNER_FAILED, message)

    async def _leave(self, message: str) -> None:
        """Leave while the Tasks stream is still open: closing it could discard what was just sent on it."""
        lease_id = self._lease.id
        if lease_id is not None:
            with suppress(grpc.aio.AioRpcError):
                await self._client.leave(lease_id, message[:MAX_ERROR_CHARACTERS])
                self._lease.lost()


def _failure(task: pb.Task, message: str) -> pb.LearnerMessage:
    return pb.LearnerMessage(failure=pb.TaskFailure(task_id=task.task_id, message=message[:MAX_ERROR_CHARACTERS]))


def _metrics(evaluation: pb.Evaluation) -> str:
    values = ", ".join(f"{metric.name} {metric.value:.4f}" for metric in evaluation.metrics)
    return f"{values or 'no metrics'} on {evaluation.examples} held-out examples"

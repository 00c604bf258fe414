"""A learner's conversation with its controller: join, open the Tasks stream, obey, and come back when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import grpc
import grpc.aio

from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl_learner.client import ControllerClient, StreamClosedError, TaskStream
from metisfl_learner.exits import ExitCode, FatalError
from metisfl_learner.jobs import Jobs
from metisfl_learner.lease import Lease
from metisfl_learner.outbox import Outbox
from metisfl_learner.retry import REFUSALS, Backoff
from metisfl_learner.security import distrust
from metisfl_learner.task_loop import Stop
from metisfl_learner.work import Trainee
from metisfl_learner.worker import Worker

ANSWER_SECONDS = 1.0
"""After Ready: how long to listen before saying more. When a stream is refused while a message is being written, gRPC
reports an internal error in place of the refusal."""

LAST_WORDS_SECONDS = 1.0
"""After a failed write: how long the stream may take to say why it broke."""

RENEWAL_SECONDS = 0.2
"""How often to look whether a certificate can be renewed."""

RETRY_SECONDS = 2.0
"""After a renewal that failed."""

_BROKEN_STREAM = (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError)


class _RenewedError(Exception):
    """There is a new certificate, which the present stream does not have."""


class Session:
    """Runs until the controller says STOP.

    `prepare` makes the learner from the controller's terms; it runs in the worker and may raise FatalError. It is
    called again only when a later Join brings other terms.
    """

    def __init__(
        self,
        client: ControllerClient,
        request: pb.JoinRequest,
        prepare: Callable[[pb.JoinResponse], Trainee],
        worker: Worker,
        connect_deadline_seconds: float,
        log: ContextLogger,
    ) -> None:
        self.lease = Lease()
        self._client = client
        self._request = request
        self._prepare = prepare
        self._worker = worker
        self._log = log
        self._outbox = Outbox()
        self._backoff = Backoff(give_up_after=connect_deadline_seconds)
        self._prepared_for: pb.JoinResponse | None = None
        self._jobs: Jobs | None = None
        self._served = False

    async def run(self) -> None:
        """Returns after a STOP; raises FatalError when this learner cannot go on."""
        try:
            async with asyncio.TaskGroup() as group:
                reason = await self._converse(group)
                self._log.info("stopping: %s", reason)
                if self._jobs is not None:
                    self._jobs.cancel_all()
        except BaseExceptionGroup as errors:
            error = errors.exceptions[0]
            raise error from error.__cause__
        finally:
            # The learner's code only learns from this that nobody waits for it.
            if self._jobs is not None:
                self._jobs.cancel_all()

    async def _converse(self, group: asyncio.TaskGroup) -> str:
        while True:
            try:
                await self._client.certify()
                jobs, terms = await self._joined(group)
                return await self._obey(jobs, terms)
            except _RenewedError:
                self._log.info("the certificate is renewed: going on with a new connection")
                await self._client.reopen()
            except grpc.aio.AioRpcError as error:
                await self._recover(error.code(), error.details() or "")
            except StreamClosedError as error:
                await self._recover(None, str(error))

    async def _joined(self, group: asyncio.TaskGroup) -> tuple[Jobs, pb.JoinResponse]:
        if self.lease.id is None:
            await self._join()
        terms = await self.lease.terms()
        if self._jobs is None:
            trainee = await self._worker.run(lambda: self._prepare(terms))
            self._jobs = Jobs(group, self._client, self._worker, trainee, self.lease, self._outbox, self._log)
        return self._jobs, terms

    async def _join(self) -> None:
        if self._client.identity is not None:
            self._request.ordinal = self._client.identity.ordinal
        try:
            terms = await self._client.join(self._request)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                # A controller that has lost its state, or a learner that was away for too long.
                self._client.forget_certificate()
            raise
        self._backoff.contact()
        self._log = self._log.bind(learner=terms.learner_id, federation=terms.federation)
        self._log.info("joined, share %d of %d", terms.partition.index + 1, terms.partition.count)
        if self._prepared_for is not None and not _same_work(self._prepared_for, terms):
            self._log.warning("the federation has changed: starting over with its new terms")
            if self._jobs is not None:
                self._jobs.cancel_all()
            self._jobs = None
        self._prepared_for = terms
        self.lease.renew(terms)

    async def _obey(self, jobs: Jobs, terms: pb.JoinResponse) -> str:
        """Serve one Tasks stream; returns the reason of a STOP, raises when the stream breaks."""
        stream = self._client.tasks()
        answered = asyncio.Event()
        reader = asyncio.create_task(self._read(stream, jobs, answered))
        writer = asyncio.create_task(self._write(stream, jobs, terms, answered))
        renewal = asyncio.create_task(self._renew(jobs))
        try:
            await asyncio.wait({reader, writer, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if not reader.done() and not renewal.done():
                await asyncio.wait({reader}, timeout=LAST_WORDS_SECONDS)
            if reader.done():
                return reader.result()
            if renewal.done():
                renewal.result()
                raise _RenewedError
            error = writer.exception()
            if isinstance(error, _BROKEN_STREAM):
                raise StreamClosedError(f"the controller takes no messages: {error!r}")
            writer.result()
            raise AssertionError("the writer of a Tasks stream never ends on its own")
        finally:
            reader.cancel()
            writer.cancel()
            renewal.cancel()
            await asyncio.gather(reader, writer, renewal, return_exceptions=True)
            stream.close()
            jobs.disconnected()

    async def _read(self, stream: TaskStream, jobs: Jobs, answered: asyncio.Event) -> str:
        while True:
            task = await stream.receive()
            answered.set()
            self._backoff.contact()
            self._served = True
            for action in (actions := jobs.loop.receive(task)):
                if isinstance(action, Stop):
                    return action.reason
            jobs.act(actions)

    async def _write(self, stream: TaskStream, jobs: Jobs, terms: pb.JoinResponse, answered: asyncio.Event) -> None:
        """Ready first, then whatever there is to say, and a heartbeat when there is nothing."""
        self._outbox.clear()
        await stream.send(jobs.ready(terms.lease.id))
        self._backoff.contact()
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await answered.wait()
        if jobs.loop.evaluation is not None:
            self._outbox.put(pb.LearnerMessage(evaluation=jobs.loop.evaluation))
        while True:
            message = await self._outbox.get(max(terms.lease.heartbeat_seconds, 1))
            await stream.send(message or jobs.heartbeat())
            self._backoff.contact()
            if message is not None:
                self._outbox.done()

    async def _renew(self, jobs: Jobs) -> None:
        """Return when there is a new certificate, between two tasks if one ends in time. Raises FatalError."""
        await self._client.renewal_due()
        while True:
            try:
                if jobs.idle or self._client.renewal_pressing:
                    return await self._client.renew()
            except grpc.aio.AioRpcError as error:
                if error.code() in REFUSALS:
                    raise
                self._log.warning("the certificate is not renewed yet: %s", error.details())
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(RENEWAL_SECONDS)

    async def _recover(self, code: grpc.StatusCode | None, words: str) -> None:
        """Wait before the next attempt. Raises FatalError when there is no sense in one."""
        if code in REFUSALS:
            raise FatalError(ExitCode.REFUSED, f"the controller refused this learner: {words}")
        if (reason := distrust(words)) is not None:
            raise FatalError(ExitCode.REFUSED, f"not connected to {self._client.address}: {reason} ({words})")
        if code == grpc.StatusCode.UNAUTHENTICATED:
            if self._served:
                # A restarted controller, which answers; not one that gives out leases it does not accept.
                self._backoff.start_over()
            self._served = False
            self.lease.lost()
        delay = self._backoff.delay()
        name = code.name if code is not None else "closed"
        if delay is None:
            raise FatalError(
                ExitCode.UNREACHABLE,
                f"the controller could not be reached for {self._backoff.silent_seconds:.0f} s ({name}: {words})",
            )
        self._log.warning("not connected, next attempt in %.1f s (%s: %s)", delay, name, words)
        await asyncio.sleep(delay)


def _same_work(one: pb.JoinResponse, other: pb.JoinResponse) -> bool:
    """Whether two Joins ask for the same learner on the same data, and for its results in the same form."""
    return (
        one.federation_uid == other.federation_uid
        and (one.partition, one.evaluator) == (other.partition, other.evaluator)
        and dict(one.parameters) == dict(other.parameters)
        and (one.codec, one.topk_fraction, one.updates) == (other.codec, other.topk_fraction, other.updates)
        and one.control == other.control
        and (one.compression, one.compression_level) == (other.compression, other.compression_level)
    )

"""One learner process from start to end: load the entrypoint, hold the session, leave in an orderly way."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable

import grpc.aio

from metisfl import __version__, logs
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.codecs import CodecError
from metisfl.wire.limits import MAX_ERROR_CHARACTERS, PROTOCOL_VERSION
from metisfl.wire.transport import Transport, supported_codecs, supported_compressions
from metisfl_learner.client import ControllerClient
from metisfl_learner.exits import ExitCode, FatalError
from metisfl_learner.learner import Capability, Learner, LearnerContext, PartitionPlace
from metisfl_learner.loading import EntrypointError, load_class
from metisfl_learner.retry import Backoff
from metisfl_learner.security import Passport
from metisfl_learner.session import Session
from metisfl_learner.settings import Settings
from metisfl_learner.work import Trainee, prepare
from metisfl_learner.worker import Worker

REPORT_SECONDS = 15.0
"""How long it may take to tell the controller that the entrypoint cannot be loaded."""


_CAPABILITIES = {
    Capability.PROXIMAL_TERM: pb.CAPABILITY_PROXIMAL_TERM,
    Capability.CONTROL_VARIATES: pb.CAPABILITY_CONTROL_VARIATES,
}


async def run(settings: Settings, worker: Worker) -> None:
    """Returns after STOP or a signal to end; raises FatalError otherwise."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    work = asyncio.create_task(_learn(settings, worker))
    signalled = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({work, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
            if settings.park_after_stop:
                await signalled
    finally:
        for task in (work, signalled):
            task.cancel()
        await asyncio.gather(work, signalled, return_exceptions=True)


async def _learn(settings: Settings, worker: Worker) -> None:
    log = logs.logger(__name__, learner=settings.learner)
    async with ControllerClient(settings.controller, _passport(settings)) as client:
        try:
            learner_class = await worker.run(lambda: load_class(settings.entrypoint))
        except EntrypointError as error:
            await _report(client, _join_request(settings, "unknown", Capability), error)
            raise
        session = Session(
            client,
            _join_request(settings, learner_class.framework, learner_class.supports),
            lambda terms: _prepare(settings, learner_class, terms),
            worker,
            settings.connect_deadline_seconds,
            log,
        )
        error_text = ""
        try:
            await session.run()
        except FatalError as error:
            error_text = error.message
            raise
        except Exception as error:
            error_text = f"unexpected {type(error).__name__}: {error}"
            raise
        except asyncio.CancelledError:
            log.info("stopping: asked to end")
            raise
        finally:
            if session.lease.id is not None:
                await _leave(client, session.lease.id, error_text, log)


def _passport(settings: Settings) -> Passport | None:
    """Raises FatalError."""
    if settings.tls_dir is None or settings.state_dir is None:
        return None
    return Passport(settings.tls_dir, settings.state_dir, settings.group, settings.ordinal, settings.instance)


def _join_request(settings: Settings, framework: str, capabilities: Iterable[Capability]) -> pb.JoinRequest:
    return pb.JoinRequest(
        protocol_version=PROTOCOL_VERSION,
        group=settings.group,
        ordinal=settings.ordinal or 0,
        framework=framework,
        software_version=__version__,
        codecs=supported_codecs(),
        compressions=supported_compressions(),
        capabilities=[_CAPABILITIES[each] for each in capabilities],
    )


def _prepare(settings: Settings, learner_class: type[Learner], terms: pb.JoinResponse) -> Trainee:
    context = LearnerContext(
        learner_id=terms.learner_id,
        federation=terms.federation,
        parameters={**terms.parameters, **settings.parameters},
        partition=PartitionPlace(terms.partition.index, terms.partition.count),
        state_dir=settings.state_dir,
        evaluator=terms.evaluator,
        logger=logs.logger(settings.entrypoint, learner=terms.learner_id, federation=terms.federation),
    )
    try:
        transport = Transport.of(terms)
    except CodecError as error:
        raise FatalError(
            ExitCode.REFUSED,
            f"the controller asks for what this learner does not know: {error}; use images of one release",
        ) from error
    return prepare(settings.entrypoint, learner_class, context, transport, terms.federation_uid)


async def _report(client: ControllerClient, request: pb.JoinRequest, error: FatalError) -> None:
    """Tell the controller why this learner cannot take part, if it can be reached soon."""
    backoff = Backoff(give_up_after=REPORT_SECONDS)
    while True:
        try:
            await client.certify()
            if client.identity is not None:
                request.ordinal = client.identity.ordinal
            terms = await client.join(request)
            await client.leave(terms.lease.id, error.message[:MAX_ERROR_CHARACTERS])
            return
        except grpc.aio.AioRpcError:
            delay = backoff.delay()
            if delay is None:
                return
            await asyncio.sleep(delay)


async def _leave(client: ControllerClient, lease_id: str, error: str, log: logs.ContextLogger) -> None:
    try:
        await client.leave(lease_id, error[:MAX_ERROR_CHARACTERS])
    except grpc.aio.AioRpcError as failure:
        log.debug("could not say goodbye: %s", failure.details())

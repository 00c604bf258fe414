"""Puts one controller together and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from metisfl.files import replacing
from metisfl.logs import ContextLogger
from metisfl.spec import Federation
from metisfl.spec.fields import quantity_bytes
from metisfl.wire import rpc
from metisfl_controller.aggregation.choice import kept_bytes, kernels_of, maker_of_state, max_slots
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.memory import ModelMemory, default_budget
from metisfl_controller.clock import steady_clock
from metisfl_controller.conductor.conductor import Conductor
from metisfl_controller.conductor.served import IN_MEMORY
from metisfl_controller.configuration import Configuration, ConfigurationFiles, follow
from metisfl_controller.memory_limit import available_memory
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.security.api import TokenGuard, security_routes, token_source
from metisfl_controller.security.setup import Security
from metisfl_controller.server.rest import build_app
from metisfl_controller.server.servicer import Servicer
from metisfl_controller.server.upload_call import UploadCall
from metisfl_controller.server.uploads import Uploads
from metisfl_controller.settings import Address, Settings, SettingsError
from metisfl_controller.state.records import StateError
from metisfl_controller.state.registry import Registry
from metisfl_controller.state.store import Store

SHUTDOWN_SECONDS = 5.0


class _RestServer(uvicorn.Server):
    """Uvicorn without its own signal handlers: the process has one place that decides to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, log: ContextLogger, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises SettingsError, SpecError, StateError, OSError, RuntimeError (no OpenMP)."""
    clock = steady_clock()
    files = ConfigurationFiles(settings.federation_file, settings.partition_plan)
    configuration = files.read()
    federation = configuration.federation
    uid = settings.federation_uid or _kept_uid(settings.state_dir)
    log = log.bind(federation=federation.metadata.name)
    aggregation = federation.spec.aggregation
    # First, as it may be refused: what follows starts threads.
    store = Store(
        directory=settings.state_dir,
        uid=uid,
        name=federation.metadata.name,
        checkpoints=settings.checkpoints,
        adopt=settings.adopt_state,
        keep_versions=federation.spec.controller.keep_versions,
        maker=maker_of_state(aggregation),
    )
    memory = ModelMemory(
        budget=_budget(federation, log),
        directory=settings.state_dir / "staging",
        kept_bytes=lambda layout: kept_bytes(aggregation, layout, federation.spec.total_learners),
        max_slots=max_slots(aggregation),
        travelling=IN_MEMORY if federation.spec.protocol.outlives_versions else 1,
    )
    conductor = Conductor(
        configuration=configuration,
        uid=uid,
        registry=Registry.of(federation.spec, configuration.plan, settings.lease_seconds),
        engine=Engine(settings.threads, kernels_of(aggregation)),
        store=store,
        uploads=Uploads(memory, log),
        memory=memory,
        metrics=ControllerMetrics(CollectorRegistry(), federation.metadata.name, log),
        clock=clock,
        log=log,
    )
    try:
        await conductor.start()
        _spare_what_stays()
        log.info("kernels are compiled", extra={"threads": settings.threads})
        security = Security.open(settings, federation.spec, uid, clock, log)

        def amend(changed: Configuration) -> None:
            security.amend(settings, changed.federation.spec)
            conductor.amend(changed)
            conductor.attendance.shut_out(security.ledger.revoked)

        beside = [
            asyncio.create_task(follow(files, configuration, amend, log)),
            asyncio.create_task(security.audit.run()),
        ]
        try:
            await _serve_until_stopped(conductor, security, settings, log, stop, beside)
        finally:
            for task in beside:
                task.cancel()
            await security.close()
    finally:
        await conductor.close()


def _spare_what_stays() -> None:
    """Modules and compiled kernels live as long as the process: garbage collection need not look at them again, nor as
    often as its defaults for small programs say. With thousands of learners it would stop the event loop for long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _serve_until_stopped(
    conductor: Conductor,
    security: Security,
    settings: Settings,
    log: ContextLogger,
    stop: asyncio.Event,
    beside: list[asyncio.Task[None]],
) -> None:
    """`beside`: what must not end either. Raises what ended one of the tasks."""
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(_listen(settings.http_address))
        grpc_server, grpc_address = await _start_grpc(conductor, security, settings.grpc_address)
        undo.pop_all()
    http_address = Address(settings.http_address.host, listener.getsockname()[1])
    rest = _RestServer(
        uvicorn.Config(_rest_app(conductor, security, settings), log_config=None, access_log=False, lifespan="off")
    )
    rest_task = asyncio.create_task(rest.serve(sockets=[listener]))
    conducting = asyncio.create_task(conductor.run())
    stopping = asyncio.create_task(stop.wait())
    if settings.endpoint_file:
        _write_endpoints(settings.endpoint_file, grpc_address, http_address)
    log.info("serving", extra={"grpc": str(grpc_address), "http": str(http_address)})
    try:
        running = {conducting, stopping, rest_task, *beside}
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        log.info("stopping")
        for task in (conducting, stopping):
            task.cancel()
        await grpc_server.stop(grace=0.5)
        rest.should_exit = True
        await asyncio.wait({rest_task}, timeout=SHUTDOWN_SECONDS)


def _rest_app(conductor: Conductor, security: Security, settings: Settings) -> ASGIApp:
    """Raises SettingsError when there should be a token and is none."""
    app = build_app(conductor)
    app.include_router(security_routes(security))
    return TokenGuard(app, token_source(settings.api_token_file)) if settings.api_token_file else app


async def _start_grpc(conductor: Conductor, security: Security, address: Address) -> tuple[grpc.aio.Server, Address]:
    server = grpc.aio.server(options=rpc.SERVER_OPTIONS)
    servicer = Servicer(conductor, security.gate, security.audit)
    server.add_generic_rpc_handlers(
        (
            rpc.generic_handler(
                {
                    rpc.ENROLL.name: security.enroll,
                    rpc.JOIN.name: servicer.join,
                    rpc.TASKS.name: servicer.tasks,
                    rpc.DOWNLOAD.name: servicer.download,
                    rpc.UPLOAD.name: UploadCall(conductor, security.gate).serve,
                    rpc.LEAVE.name: servicer.leave,
                }
            ),
        )
    )
    try:
        port = security.listen(server, str(address))
    except RuntimeError as error:
        await server.stop(None)
        # gRPC does not say which of the two it is.
        raise _not_listening(
            "METISFL_GRPC_ADDRESS", address, "the port is taken, or the address is not this machine's"
        ) from error
    await server.start()
    return server, Address(address.host, port)


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise _not_listening("METISFL_HTTP_ADDRESS", address, error.strerror or str(error)) from error


def _not_listening(setting: str, address: Address, why: str) -> SettingsError:
    return SettingsError(f"{setting}: cannot listen on {address}: {why}; port 0 picks a free one")


def _budget(federation: Federation, log: ContextLogger) -> int:
    """Bytes of memory for models."""
    available, wanted = available_memory(), federation.spec.controller.memory_budget
    if wanted is None:
        return default_budget(available)
    budget = quantity_bytes(wanted)
    if budget > available:
        log.warning("memoryBudget %s is more than the %d MiB that this process may use", wanted, available >> 20)
    return budget


def _kept_uid(state_dir: Path) -> str:
    """Outside of Kubernetes nobody hands out a UID: make one and keep it with the state. Raises StateError."""
    path = state_dir / "uid"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with replacing(path) as file:
                file.write(str(uuid.uuid4()).encode())
        return path.read_text().strip()
    except OSError as error:
        raise StateError(f"cannot use the state directory {state_dir}: {error}") from error


def _write_endpoints(path: Path, grpc_address: Address, http_address: Address) -> None:
    with replacing(path) as file:
        file.write(json.dumps({"grpc": str(grpc_address), "http": str(http_address)}).encode())

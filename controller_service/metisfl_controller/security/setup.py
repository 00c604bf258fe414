"""The parts of security, put together once at start-up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc

from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.spec import FederationSpec
from metisfl_controller.clock import Clock
from metisfl_controller.security.audit import Action, Audit
from metisfl_controller.security.credentials import TlsFolder
from metisfl_controller.security.enrolment import Enrolment
from metisfl_controller.security.gate import CertificateGate, Gate, OpenGate
from metisfl_controller.security.ledger import Issued, Ledger
from metisfl_controller.settings import Settings, SettingsError
from metisfl_controller.state.security import SecurityStore


@dataclass(frozen=True)
class Security:
    """`tls` and `enrolment` are None where TLS is disabled."""

    gate: Gate
    audit: Audit
    ledger: Ledger
    store: SecurityStore
    clock: Clock
    tls: TlsFolder | None = None
    enrolment: Enrolment | None = None

    @classmethod
    def open(cls, settings: Settings, spec: FederationSpec, uid: str, clock: Clock, log: ContextLogger) -> Security:
        """Once the state directory belongs to this process. Raises SettingsError, CredentialsError or
        StateError."""
        tls = _tls_folder(settings, spec, log)
        store = SecurityStore(settings.state_dir)
        audit = Audit(store.record, clock, log)
        ledger = Ledger()
        ledger.amend(_places(spec), _announced(settings, spec), spec.security.revoked, clock())
        security = cls(OpenGate(), audit, ledger, store, clock)
        security._keep(ledger.load(store.certificates(clock()), clock()))
        if tls is None:
            log.warning("TLS is disabled: whoever reaches this port may join, and everything travels in clear text")
            return security
        lifetime = timedelta(seconds=settings.certificate_seconds or spec.security.tls.certificate_seconds)
        enrolment = Enrolment(uid, ledger, tls.issuer, lifetime, store.keep, clock, audit)
        return cls(CertificateGate(uid, ledger, clock, audit), audit, ledger, store, clock, tls, enrolment)

    def amend(self, settings: Settings, spec: FederationSpec) -> None:
        """The spec has changed: places and revocations hold at once."""
        now = self.clock()
        self._keep(self.ledger.amend(_places(spec), _announced(settings, spec), spec.security.revoked, now))

    def _keep(self, revoked: list[Issued]) -> None:
        self.store.keep(revoked)
        for entry in revoked:
            made = datetime.fromtimestamp(entry.issued_at, UTC)
            self.audit.record(Action.REVOKED, entry.learner, "", f"certificate {entry.serial} of {made:%Y-%m-%d %H:%M}")

    async def enroll(self, request: pb.EnrollRequest, context: grpc.aio.ServicerContext) -> pb.EnrollResponse:
        if self.enrolment is None:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, "TLS is disabled in this federation: there are no certificates"
            )
            raise AssertionError("abort raises")
        return await self.enrolment.enroll(request, context)

    def listen(self, server: grpc.aio.Server, address: str) -> int:
        """Answers the port. Raises RuntimeError when the address is not to be had."""
        if self.tls is None:
            port: int = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, self.tls.server_credentials())
        return port

    async def close(self) -> None:
        await self.audit.flush()
        await asyncio.to_thread(self.store.close)


def _tls_folder(settings: Settings, spec: FederationSpec, log: ContextLogger) -> TlsFolder | None:
    if not spec.security.tls.enabled:
        return None
    if settings.tls_dir is None:
        raise SettingsError(
            f"METISFL_TLS_DIR is not set, and security.tls.mode is {spec.security.tls.mode}: name the folder with the "
            "controller's certificates, or set the mode to Disabled"
        )
    return TlsFolder(settings.tls_dir, log)


def _places(spec: FederationSpec) -> dict[str, int]:
    return {group.name: group.size for group in spec.learner_groups}


def _announced(settings: Settings, spec: FederationSpec) -> frozenset[str]:
    """Groups whose pods the operator announces."""
    return frozenset(group.name for group in spec.learner_groups if settings.announced_pods and not group.external)

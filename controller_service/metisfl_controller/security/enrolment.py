"""The Enroll call: from a certificate request to a learner's certificate."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
from cryptography import x509

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.tls.authority import Authority, PublicKey, issue_client
from metisfl.tls.names import BootstrapIdentity, IdentityError, LearnerIdentity
from metisfl.tls.pem import certificates_pem, issued_by
from metisfl.tls.requests import RequestError, fingerprint, requested_key
from metisfl_controller.clock import Clock
from metisfl_controller.security.audit import Action, Audit
from metisfl_controller.security.ledger import (
    EnrolmentRefusedError,
    Issued,
    Ledger,
    NotAnnouncedError,
    RevokedError,
    UnknownCertificateError,
)
from metisfl_controller.security.peers import Peer, peer
from metisfl_controller.state.records import StateError

ANNOUNCEMENT_SECONDS = 10.0
"""How long a pod's enrolment waits here for the operator to announce the pod, before it is asked to try again."""

_LOOK_SECONDS = 0.1
MAX_INSTANCE_CHARACTERS = 64


@dataclass(frozen=True)
class Grant:
    """What the ledger agreed to."""

    group: str
    ordinal: int
    instance: str
    renews: str = ""


@dataclass(frozen=True)
class Enrolment:
    """`issuer` reads the client issuer, which may have been renewed; `store` makes ledger entries durable, or raises
    StateError; it blocks."""

    federation: str
    """The federation's UID."""
    ledger: Ledger
    issuer: Callable[[], Authority]
    lifetime: timedelta
    store: Callable[[list[Issued]], None]
    clock: Clock
    audit: Audit
    _waiting: Counter[str] = field(default_factory=Counter)
    """Calls that wait for an announcement, by group."""

    async def enroll(self, request: pb.EnrollRequest, context: grpc.aio.ServicerContext) -> pb.EnrollResponse:
        caller = ""
        try:
            known = peer(context)
            if known is None or known.identity.federation != self.federation:
                raise EnrolmentRefusedError("the certificate is not one of this federation's")
            caller = _shown(known)
            key = requested_key(request.certificate_request)
            grant = await self._grant(known, request, fingerprint(key))
            return await self._issue(grant, key, context)
        except (EnrolmentRefusedError, RevokedError, IdentityError) as error:
            self.audit.record(Action.ENROLMENT_REFUSED, caller, context.peer(), str(error))
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except RequestError as error:
            self.audit.record(Action.ENROLMENT_REFUSED, caller, context.peer(), str(error))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except UnknownCertificateError as error:
            self.audit.record(Action.ENROLMENT_REFUSED, caller, context.peer(), str(error))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except (NotAnnouncedError, StateError) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        raise AssertionError("abort raises")

    async def _grant(self, caller: Peer, request: pb.EnrollRequest, key: str) -> Grant:
        identity = caller.identity
        if isinstance(identity, LearnerIdentity):
            present = self.ledger.renew(caller.serial, caller.key, key, self.clock())
            return Grant(present.group, present.ordinal, present.instance, caller.serial)
        self._check_bootstrap(caller.certificate)
        instance = request.instance[:MAX_INSTANCE_CHARACTERS]
        ordinal = request.ordinal if request.HasField("ordinal") else None
        return Grant(identity.group, await self._enrol(identity, ordinal, instance, key), instance)

    def _check_bootstrap(self, certificate: x509.Certificate) -> None:
        """What the handshake leaves open: others may sign under the same root, and connections outlive certificates."""
        ends = certificate.not_valid_after_utc
        if self.clock() >= ends.timestamp():
            raise EnrolmentRefusedError(f"the bootstrap certificate expired at {ends:%Y-%m-%d %H:%M:%S} UTC")
        if not issued_by(certificate, self.issuer().certificate):
            # In a cluster the renewed one is on its way, so it is worth another try.
            raise UnknownCertificateError(
                "the bootstrap certificate is not signed by this federation's present client issuer: get a new bundle"
            )

    async def _enrol(self, identity: BootstrapIdentity, ordinal: int | None, instance: str, key: str) -> int:
        """Waits for the operator's announcement if it must, for ANNOUNCEMENT_SECONDS. No more calls wait than the group
        has learners: whoever has the bootstrap certificate can call as often as it likes."""
        group = identity.group
        try:
            return self.ledger.enrol(group, ordinal, instance, key, self.clock())
        except NotAnnouncedError as error:
            if self._waiting[group] >= self.ledger.places[group]:
                raise NotAnnouncedError(f"{error}; {self._waiting[group]} of the group are waiting already") from None
        self._waiting[group] += 1
        try:
            return await self._announced(group, ordinal, instance, key)
        finally:
            self._waiting[group] -= 1

    async def _announced(self, group: str, ordinal: int | None, instance: str, key: str) -> int:
        began = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                return self.ledger.enrol(group, ordinal, instance, key, self.clock())
            except NotAnnouncedError:
                if asyncio.get_running_loop().time() - began > ANNOUNCEMENT_SECONDS:
                    raise

    async def _issue(self, grant: Grant, key: PublicKey, context: grpc.aio.ServicerContext) -> pb.EnrollResponse:
        issuer, now = self.issuer(), self.clock()
        identity = LearnerIdentity(self.federation, grant.group, grant.ordinal)
        made = datetime.fromtimestamp(now, UTC)
        certificate = issue_client(issuer, identity, key, self.lifetime, made)
        issued = _entry(certificate, grant, fingerprint(key), now)
        # In the ledger before anything is awaited: a request that comes meanwhile must see it.
        changed = self.ledger.add(issued, now)
        try:
            await asyncio.to_thread(self.store, changed)
        except StateError:
            self.ledger.withdraw(issued)
            raise
        self.audit.record(
            Action.RENEWED if grant.renews else Action.ENROLLED,
            identity.learner,
            context.peer(),
            f"certificate {issued.serial} until {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        )
        return pb.EnrollResponse(
            group=grant.group,
            ordinal=grant.ordinal,
            certificate_chain=certificates_pem([certificate, *issuer.chain]),
        )


def _entry(certificate: x509.Certificate, grant: Grant, key: str, now: float) -> Issued:
    return Issued(
        serial=f"{certificate.serial_number:x}",
        group=grant.group,
        ordinal=grant.ordinal,
        instance=grant.instance,
        key=key,
        issued_at=now,
        expires_at=certificate.not_valid_after_utc.timestamp(),
        renews=grant.renews,
    )


def _shown(caller: Peer) -> str:
    identity = caller.identity
    return identity.learner if isinstance(identity, LearnerIdentity) else f"{identity.group} (bootstrap)"

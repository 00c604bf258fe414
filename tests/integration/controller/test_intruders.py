"""What the handshake lets through and the controller has to refuse: others' authorities under our root, and connections
that outlive what opened them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from metisfl.local.certificates import CertificateFolder
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.tls.authority import Authority, issue_client, make_client_issuer, new_key
from metisfl.tls.holdings import Lifetimes
from metisfl.tls.names import Identity, LearnerIdentity
from metisfl.tls.pem import KeyPair, identity_of, pair, read_key
from metisfl.tls.requests import make_request
from metisfl.wire import rpc
from metisfl_controller.state.records import StateError
from metisfl_learner.client import ControllerClient
from metisfl_learner.exits import FatalError
from metisfl_learner.security import Passport
from tests.integration.controller.test_edits import edit
from tests.integration.controller.test_security import (
    DENIED,
    SECONDS,
    UID,
    UNAUTHENTICATED,
    refused,
    secured,  # noqa: F401 - a fixture
)

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@dataclass
class ControllersClock:
    """What the controller takes for the time. Handshakes go by the system's clock all the same."""

    ahead: timedelta = timedelta(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ControllersClock:
    from metisfl_controller import service

    shown, steady = ControllersClock(), service.steady_clock()
    monkeypatch.setattr(service, "steady_clock", lambda: lambda: steady() + shown.ahead.total_seconds())
    return shown


def neighbour(root: Path) -> Authority:
    """Another client issuer of our root, as whoever may ask the same issuer of cert-manager for one has it."""
    ours = KeyPair((root / "tls.crt").read_bytes(), (root / "tls.key").read_bytes()).authority()
    return make_client_issuer(ours, "another-federation", DAY, datetime.now(UTC))


def forged(issuer: Authority, identity: Identity, key: EllipticCurvePrivateKey) -> KeyPair:
    return pair([issue_client(issuer, identity, key.public_key(), DAY, datetime.now(UTC)), *issuer.chain], key)


async def test_another_authority_under_our_root_makes_neither_bundles_nor_learners(
    secured: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with secured() as site:
        issuer = neighbour(tmp_path / "tls" / "root")
        bundle = forged(issuer, identity_of(site.bootstrap.certificates[0]), new_key())
        async with refused(UNAUTHENTICATED, "not signed by this federation's present client issuer"):
            await site.enrol(0, by=bundle)

        victim, own = await site.enrol(0), await site.enrol(1)
        await site.player("a-0", victim).join()
        for taken in (victim, own):
            # Serial numbers are in logs and in the audit trail, and its own key is anybody's to use.
            serial = taken.certificates[0].serial_number
            with monkeypatch.context() as patch:
                patch.setattr("metisfl.tls.authority.x509.random_serial_number", lambda serial=serial: serial)
                double = forged(issuer, LearnerIdentity(UID, "a", 0), read_key(own.key))
            code = UNAUTHENTICATED if taken is victim else DENIED
            async with refused(code, "not known here" if taken is victim else "is a-1's and cannot speak for a-0"):
                await site.player("a-0", double).join()


async def test_a_connection_that_was_opened_in_time_enrols_nobody_later(
    secured: Callable[..., Any],  # noqa: F811
    clock: ControllersClock,
) -> None:
    async with secured(lifetimes=Lifetimes(DAY, HOUR)) as site:
        enroll = rpc.ENROLL.stub(site.channel(site.bootstrap))
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "not a certificate request"):
            await enroll(pb.EnrollRequest(), timeout=SECONDS)
        clock.ahead = HOUR
        async with refused(DENIED, "the bootstrap certificate expired"):
            await enroll(pb.EnrollRequest(certificate_request=make_request(new_key())), timeout=SECONDS)


async def test_a_task_stream_ends_with_the_certificate(
    secured: Callable[..., Any],  # noqa: F811
    clock: ControllersClock,
) -> None:
    groups = [{"name": "a", "replicas": 1}]
    settings = {"METISFL_CERTIFICATE_SECONDS": "3600", "METISFL_LEASE_SECONDS": "7200"}
    async with secured(settings=settings, learnerGroups=groups) as site:
        own = await site.enrol(0)
        player = site.player("a-0", own)
        await player.enter()
        await player.task("INITIALISE")
        clock.ahead = HOUR
        await player.tell(pb.LearnerMessage(heartbeat=pb.Heartbeat()))
        async with refused(UNAUTHENTICATED, "has expired: enrol again"):
            await player.receive()


async def test_who_loses_its_place_is_shut_out_at_once(secured: Callable[..., Any], tmp_path: Path) -> None:  # noqa: F811
    groups = [{"name": "a", "external": True, "maxLearners": 2}]
    async with secured(learnerGroups=groups) as site:
        first, second = [site.player(f"a-{ordinal}", await site.enrol(ordinal)) for ordinal in (0, 1)]
        await first.enter()
        await second.enter()
        edit(tmp_path, learnerGroups=[{**groups[0], "maxLearners": 1}])
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "a-1 has no place in the federation any more"):
            while True:
                await second.receive()
        await first.task("INITIALISE")


async def test_a_revocation_that_cannot_be_kept_stops_the_controller(
    secured: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
) -> None:
    """It takes effect when the controller starts again, and is not forgotten by one that goes on."""

    async def runs() -> None:
        async with secured() as site:
            await site.enrol(0)
            with closing(sqlite3.connect(tmp_path / "state" / "history.sqlite")) as database:
                database.execute("DROP TABLE certificates")
            async with refused(grpc.StatusCode.UNAVAILABLE, "no such table"):
                await site.enrol(1)
            edit(tmp_path, security={"tls": {"mode": "Auto"}, "revoked": ["a-0"]})
            with suppress(httpx.HTTPError):
                while await site.table.status():  # noqa: ASYNC110 - REST is polled
                    await asyncio.sleep(0.05)

    with pytest.raises(StateError, match="no such table"):
        await asyncio.wait_for(runs(), SECONDS)


async def test_a_clock_that_is_behind_is_told_of(served: Callable[..., Any], tmp_path: Path) -> None:
    certificates = CertificateFolder(tmp_path / "tls")
    certificates.prepare(UID, ["a"], datetime.now(UTC) - timedelta(hours=2))
    settings = {"METISFL_TLS_DIR": str(certificates.controller), "METISFL_FEDERATION_UID": UID}
    async with served(settings=settings, security={"tls": {"mode": "Auto"}}) as table:
        passport = Passport(
            certificates.learners("a"), tmp_path / "learner", "a", None, "", lambda: time.time() - 3600.0
        )
        async with ControllerClient(table.grpc, passport) as client:
            with pytest.raises(FatalError, match="check this machine's clock"):
                await client.certify()

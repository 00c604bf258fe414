"""Certificates end while a federation runs, and nobody notices: real sessions, lifetimes of seconds."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from metisfl import logs
from metisfl.local.certificates import CertificateFolder
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.transport import Transport, supported_codecs, supported_compressions
from metisfl_learner.client import ControllerClient
from metisfl_learner.exits import ExitCode, FatalError
from metisfl_learner.learner import LearnerContext, PartitionPlace
from metisfl_learner.security import Passport
from metisfl_learner.session import Session
from metisfl_learner.work import prepare
from metisfl_learner.worker import Worker
from tests.integration.local.line_learner import LineLearner

UID = "0b0c2c33-3b3a-4e6f-9f0a-222222222222"


@pytest.fixture
def certificates(tmp_path: Path) -> CertificateFolder:
    folder = CertificateFolder(tmp_path / "tls")
    folder.prepare(UID, ["a"], datetime.now(UTC))
    return folder


@asynccontextmanager
async def learning(address: str, given: Path, state: Path, ordinal: int | None = None) -> AsyncIterator[Any]:
    """A learner's session, as its process holds it; yields the task that runs it."""
    log = logs.logger("test")

    def make(terms: pb.JoinResponse) -> Any:
        place = PartitionPlace(terms.partition.index, terms.partition.count)
        context = LearnerContext(terms.learner_id, terms.federation, dict(terms.parameters), place, None, log)
        return prepare("test:Learner", LineLearner, context, Transport.of(terms), terms.federation_uid)

    request = pb.JoinRequest(
        protocol_version=1, group="a", codecs=supported_codecs(), compressions=supported_compressions()
    )
    async with ControllerClient(address, Passport(given, state, "a", ordinal, "")) as client:
        session = asyncio.create_task(Session(client, request, make, Worker(), 30.0, log).run())
        try:
            yield session
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)


def settings(certificates: CertificateFolder, seconds: int = 3600, **more: str) -> dict[str, str]:
    return {
        "METISFL_TLS_DIR": str(certificates.controller),
        "METISFL_FEDERATION_UID": UID,
        "METISFL_CERTIFICATE_SECONDS": str(seconds),
        **more,
    }


def spec(learners: int, seconds: str, rounds: int) -> dict[str, Any]:
    return {
        "learner": {"entrypoint": "test:Learner", "parameters": {"seconds": seconds}},
        "learnerGroups": [{"name": "a", "replicas": learners}],
        "termination": {"maxRounds": rounds},
        "security": {"tls": {"mode": "Auto"}},
    }


def connected(status: dict[str, Any]) -> bool:
    return any(learner["connected"] for learner in status["learners"])


async def actions(table: Any) -> Counter[tuple[str, str]]:
    return Counter((entry["action"], entry["learner"]) for entry in (await table.get("/v1/audit?limit=1000")).json())


async def test_no_task_is_lost_while_everybodys_certificate_is_replaced(
    served: Callable[..., Any], certificates: CertificateFolder, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        table = await stack.enter_async_context(served(settings=settings(certificates, 6), **spec(2, "0.15", 50)))
        sessions = [
            await stack.enter_async_context(learning(table.grpc, certificates.learners("a"), tmp_path / str(n)))
            for n in range(2)
        ]
        await table.until_status(lambda status: status["currentRound"] > 3)
        before = server_certificate(table.grpc)
        (certificates.controller / "tls.crt").unlink()
        certificates.prepare(UID, ["a"], datetime.now(UTC))
        await asyncio.gather(*sessions)
        rounds = (await table.get("/v1/rounds")).json()
        assert [(r["contributors"], r["lost"], r["attempts"]) for r in rounds] == [(["a-0", "a-1"], [], 1)] * 50
        seen = await actions(table)
        assert min(seen["Renewed", "a-0"], seen["Renewed", "a-1"]) >= 1
        assert {action for action, _ in seen} == {"Enrolled", "Joined", "Renewed"}
        assert server_certificate(table.grpc) != before


@pytest.mark.slow
async def test_a_task_longer_than_a_certificate_is_not_lost(
    served: Callable[..., Any], certificates: CertificateFolder, tmp_path: Path
) -> None:
    async with served(settings=settings(certificates, 6), **spec(1, "6.5", 1)) as table:
        async with learning(table.grpc, certificates.learners("a"), tmp_path / "state") as session:
            await session
        (committed,) = (await table.get("/v1/rounds")).json()
        assert (committed["contributors"], committed["attempts"]) == (["a-0"], 1)


async def test_a_learner_comes_back_with_its_certificate_and_enrols_anew_when_nobody_knows_it(
    served: Callable[..., Any], certificates: CertificateFolder, tmp_path: Path
) -> None:
    given, state = certificates.learners("a"), tmp_path / "learner"
    async with AsyncExitStack() as stack:
        async with served(settings=settings(certificates), **spec(1, "0.2", 1000)) as table:
            await stack.enter_async_context(learning(table.grpc, given, state))
            await table.until_status(connected)
        kept = (state / "tls" / "learner.pem").read_bytes()
        again = settings(certificates, METISFL_GRPC_ADDRESS=table.grpc)
        async with served(settings=again, **spec(1, "0.2", 1000)) as table:
            await table.until_status(connected)
        assert (state / "tls" / "learner.pem").read_bytes() == kept
        shutil.rmtree(tmp_path / "state")
        async with served(settings=again, **spec(1, "0.2", 1000)) as table:
            await table.until_status(connected)
        assert (state / "tls" / "learner.pem").read_bytes() != kept


async def test_a_controller_of_another_authority_is_told_from_ours(
    served: Callable[..., Any], certificates: CertificateFolder, tmp_path: Path
) -> None:
    ours = CertificateFolder(tmp_path / "ours")
    ours.prepare(UID, ["a"], datetime.now(UTC))
    async with served(settings=settings(certificates), **spec(1, "0", 1)) as table:
        async with learning(table.grpc, ours.learners("a"), tmp_path / "learner") as session:
            with pytest.raises(FatalError, match="no valid certificate of this federation") as caught:
                await session
        assert caught.value.code is ExitCode.REFUSED


async def test_a_controller_in_clear_text_is_noticed(
    served: Callable[..., Any], certificates: CertificateFolder, tmp_path: Path
) -> None:
    async with served() as table, learning(table.grpc, certificates.learners("a"), tmp_path / "learner") as session:
        with pytest.raises(FatalError, match="does not speak TLS"):
            await session


def server_certificate(address: str) -> x509.Certificate:
    host, _, port = address.rpartition(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())

"""Mutual TLS over real connections: who may enrol, who may speak for whom, and that it lasts."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from metisfl.api.access import token_headers
from metisfl.local.certificates import LIFETIMES, CertificateFolder
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.tls.authority import new_key
from metisfl.tls.holdings import Lifetimes
from metisfl.tls.names import LearnerIdentity, server_name
from metisfl.tls.pem import KeyPair, identity_of, key_pem
from metisfl.tls.requests import make_request
from metisfl.wire import rpc
from metisfl_learner.client import ControllerClient
from metisfl_learner.security import Passport
from tests.integration.controller.conftest import MODEL, Player, Table
from tests.integration.controller.test_edits import edit

UID = "0b0c2c33-3b3a-4e6f-9f0a-111111111111"
SECONDS = 10


@dataclass
class Site:
    """A machine with a bootstrap certificate, and a controller it can reach."""

    table: Table
    folder: Path
    federation: str = UID

    def channel(self, pair: KeyPair, roots: bytes | None = None) -> grpc.aio.Channel:
        roots = (self.folder / "ca.crt").read_bytes() if roots is None else roots
        credentials = grpc.ssl_channel_credentials(roots, pair.key, pair.certificate)
        options = (*rpc.CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", server_name(self.federation)))
        channel = grpc.aio.secure_channel(self.table.grpc, credentials, options=options)
        self.table.channels.append(channel)
        return channel

    @property
    def bootstrap(self) -> KeyPair:
        return KeyPair((self.folder / "tls.crt").read_bytes(), (self.folder / "tls.key").read_bytes())

    async def enrol(
        self, ordinal: int | None = None, by: KeyPair | None = None, key: Any = None, instance: str = ""
    ) -> KeyPair:
        key = key or new_key()
        request = pb.EnrollRequest(certificate_request=make_request(key), ordinal=ordinal, instance=instance)
        channel = self.channel(by or self.bootstrap)
        response = await rpc.ENROLL.stub(channel)(request, timeout=SECONDS)
        return KeyPair(response.certificate_chain, key_pem(key))

    def player(self, name: str, pair: KeyPair) -> Player:
        group, _, ordinal = name.rpartition("-")
        return Player(self.channel(pair), group, int(ordinal), MODEL, ("steps",))


@pytest.fixture
def secured(served: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """`async with secured(**spec) as site`: a controller with TLS, and a machine of group a.

    `age`: how long ago the certificates were issued.
    """
    certificates = CertificateFolder(tmp_path / "tls")

    @asynccontextmanager
    async def run(
        settings: dict[str, str] | None = None,
        lifetimes: Lifetimes = LIFETIMES,
        age: timedelta = timedelta(0),
        **spec: Any,
    ) -> AsyncIterator[Site]:
        certificates.prepare(UID, ["a", "b"], datetime.now(UTC) - age, lifetimes)
        given = {"METISFL_TLS_DIR": str(certificates.controller), "METISFL_FEDERATION_UID": UID, **(settings or {})}
        spec.setdefault("security", {"tls": {"mode": "Auto"}})
        async with served(settings=given, **spec) as table:
            yield Site(table, certificates.learners("a"))

    return run


@asynccontextmanager
async def refused(code: grpc.StatusCode, words: str) -> AsyncIterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert (caught.value.code(), words in (caught.value.details() or "")) == (code, True), caught.value.details()


DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


async def test_a_learner_enrols_joins_and_trains(secured: Callable[..., Any]) -> None:
    async with secured(learnerGroups=[{"name": "a", "replicas": 1}], termination={"maxRounds": 1}) as site:
        player = site.player("a-0", await site.enrol(0))
        await player.enter()
        await player.delivers(await player.task("INITIALISE"))
        task = await player.task("TRAIN")
        await player.model(0)
        await player.delivers(task, {**MODEL, "w": np.ones((3, 4), np.float32)})
        await player.task("EVALUATE")


async def test_a_bootstrap_certificate_opens_enroll_alone(secured: Callable[..., Any]) -> None:
    async with secured() as site:
        learner = site.player("a-0", await site.enrol(0))
        await learner.enter()
        thief = site.player("a-0", site.bootstrap)
        thief.lease = learner.lease
        async with refused(DENIED, "opens the Enroll call alone"):
            await thief.join()
        for call in (thief.leave(), thief.download(0), _opened(thief), _uploaded(thief, pb.Task(task_id="x"))):
            async with refused(DENIED, "opens the Enroll call alone"):
                await call


async def test_a_learner_cannot_speak_for_another(secured: Callable[..., Any]) -> None:
    async with secured() as site:
        pairs = [await site.enrol(ordinal) for ordinal in (0, 1)]
        victim, attacker = site.player("a-1", pairs[1]), site.player("a-1", pairs[0])
        await victim.enter()
        attacker.lease = victim.lease
        async with refused(DENIED, "is a-0's and cannot speak for a-1"):
            await attacker.join()
        for call in (attacker.leave(), attacker.download(0), _opened(attacker), _uploaded(attacker, pb.Task())):
            async with refused(DENIED, "is a-0's and cannot speak for a-1"):
                await call
        trail = {entry["action"] for entry in (await site.table.get("/v1/audit")).json()}
        assert trail >= {"Enrolled", "Joined", "CallRefused"}


async def _opened(player: Player) -> None:
    await player.open()
    await player.receive()


async def _uploaded(player: Player, task: pb.Task) -> None:
    call = player.upload_call()
    await call.send(player.header(task))
    await call.reply()


async def test_a_used_up_bundle_is_refused(secured: Callable[..., Any]) -> None:
    async with secured(learnerGroups=[{"name": "a", "replicas": 2}]) as site:
        key = new_key()
        first = await site.enrol(0, key=key)
        assert (await site.enrol(0, key=key)).certificate != first.certificate, "the same enrolment, answered again"
        async with refused(DENIED, "a-0 is enrolled already"):
            await site.enrol(0)
        second = await site.enrol()
        assert _identity(second) == LearnerIdentity(UID, "a", 1), "the first free place"
        for ordinal, words in ((None, "all 2 places of group 'a' are taken"), (2, "a-2 is not one of them")):
            async with refused(DENIED, words):
                await site.enrol(ordinal)


async def test_what_was_issued_survives_the_controller(secured: Callable[..., Any]) -> None:
    async with secured() as site:
        pair = await site.enrol(0)
    async with secured() as site:
        await site.player("a-0", pair).join()
        async with refused(DENIED, "enrolled already"):
            await site.enrol(0)
    async with secured(security={"revoked": ["a-0"]}) as site:
        async with refused(DENIED, "has been revoked"):
            await site.player("a-0", pair).join()
        async with refused(DENIED, "spec.security.revoked"):
            await site.enrol(0)
    async with secured() as site:
        async with refused(DENIED, "has been revoked"):
            await site.player("a-0", pair).join()
        await site.player("a-0", await site.enrol(0)).join()


async def test_a_learner_is_shut_out_while_the_federation_runs(secured: Callable[..., Any], tmp_path: Path) -> None:
    async with secured() as site:
        pair = await site.enrol(0)
        player = site.player("a-0", pair)
        await player.enter()
        edit(tmp_path, security={"tls": {"mode": "Auto"}, "revoked": ["a-0"]})
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "spec.security.revoked"):
            while True:
                await player.receive()
        async with refused(DENIED, "revoked"):
            await site.player("a-0", pair).join()


async def test_a_certificate_is_renewed_once(secured: Callable[..., Any]) -> None:
    async with secured() as site:
        first = await site.enrol(0)
        await site.player("a-0", await site.enrol(by=first)).join()
        async with refused(DENIED, "has been renewed before, with another key"):
            await site.enrol(by=first)


async def test_an_expired_bundle_is_refused_in_the_handshake(secured: Callable[..., Any]) -> None:
    lifetimes = Lifetimes(server=timedelta(days=1), bootstrap=timedelta(minutes=1))
    async with secured(lifetimes=lifetimes, age=timedelta(minutes=2)) as site, refused(grpc.StatusCode.UNAVAILABLE, ""):
        await site.enrol(0)


async def test_certificates_of_another_federation_are_refused_in_the_handshake(
    secured: Callable[..., Any], tmp_path: Path
) -> None:
    others = CertificateFolder(tmp_path / "others")
    others.prepare(UID, ["a"], datetime.now(UTC))
    async with secured() as site:
        stranger = Site(site.table, others.learners("a"))
        async with refused(grpc.StatusCode.UNAVAILABLE, "CERTIFICATE_VERIFY_FAILED"):
            await stranger.enrol(0)
        async with refused(grpc.StatusCode.UNAVAILABLE, ""):
            await site.enrol(0, by=stranger.bootstrap)


TOKEN = "a-token-of-more-than-16-characters"


@pytest.fixture
def token(tmp_path: Path) -> dict[str, str]:
    """Settings of a controller whose REST side wants the token."""
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return {"METISFL_API_TOKEN_FILE": str(file)}


async def test_a_pod_enrols_once_and_once_the_operator_has_announced_it(
    secured: Callable[..., Any], token: dict[str, str]
) -> None:
    old, new = str(uuid.uuid4()), str(uuid.uuid4())

    async def announce(site: Site, pod: str) -> None:
        answer = await site.table.put("/v1/instances", {"a-0": pod}, token_headers(TOKEN))
        assert answer.status_code == 204

    async with secured(settings={"METISFL_ANNOUNCED_PODS": "true", **token}) as site:
        waiting = asyncio.create_task(site.enrol(0, instance=old))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await announce(site, old)
        first = await waiting
        async with refused(DENIED, "this pod of a-0 has enrolled already"):
            await site.enrol(0, instance=old)
        await announce(site, new)
        second = await site.enrol(0, instance=new)
        await site.player("a-0", second).join()
        async with refused(DENIED, "has been revoked"):
            await site.player("a-0", first).join()


@pytest.mark.parametrize("header", [{"Authorization": f"Bearer {TOKEN}"}, token_headers(TOKEN)])
async def test_the_rest_side_wants_the_token(
    served: Callable[..., Any], token: dict[str, str], header: dict[str, str]
) -> None:
    async with served(settings=token) as table, httpx.AsyncClient(base_url=f"http://{table.http}") as client:
        for path in ("/v1/federation", "/v1/models/latest", "/v1/audit", "/docs", "/openapi.json", "/no-such"):
            for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}, token_headers("x")):
                assert (await client.get(path, headers=wrong)).status_code == 401
        assert (await client.put("/v1/instances", json={})).status_code == 401
        assert (await client.get("/v1/federation", headers=header)).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200


async def test_server_and_learners_may_have_different_roots(served: Callable[..., Any], tmp_path: Path) -> None:
    """As in mode Secret: learners know the server's root, the controller that of the client issuer."""
    ours, clients = CertificateFolder(tmp_path / "ours"), CertificateFolder(tmp_path / "clients")
    for folder in (ours, clients):
        folder.prepare(UID, ["a"], datetime.now(UTC))
    for name in ("ca.crt", "issuer.crt", "issuer.key"):
        (ours.controller / name).write_bytes((clients.controller / name).read_bytes())
    (clients.learners("a") / "ca.crt").write_bytes((ours.root / "root" / "tls.crt").read_bytes())
    settings = {"METISFL_TLS_DIR": str(ours.controller), "METISFL_FEDERATION_UID": UID}
    async with served(settings=settings, security={"tls": {"mode": "Auto"}}) as table:
        passport = Passport(clients.learners("a"), tmp_path / "learner", "a", None, "")
        async with ControllerClient(table.grpc, passport) as client:
            await client.certify()
            assert client.identity == LearnerIdentity(UID, "a", 0)
        assert Passport(clients.learners("a"), tmp_path / "learner", "a", None, "").usable()


async def test_a_learner_without_tls_does_not_get_in(secured: Callable[..., Any]) -> None:
    async with secured() as site, refused(grpc.StatusCode.UNAVAILABLE, ""):
        await site.table.player("a-0").join()


async def test_without_tls_there_is_nothing_to_enrol_for(served: Callable[..., Any]) -> None:
    async with served() as table, refused(grpc.StatusCode.FAILED_PRECONDITION, "TLS is disabled"):
        await rpc.ENROLL.stub(table.player("a-0").channel)(pb.EnrollRequest(), timeout=SECONDS)


def _identity(pair: KeyPair) -> Any:
    return identity_of(pair.certificates[0])


def _end(pair: KeyPair) -> datetime:
    return pair.certificates[0].not_valid_after_utc

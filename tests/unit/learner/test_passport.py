"""A learner's certificate on disk, with a controller that is a function."""

from __future__ import annotations

import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from metisfl.local.certificates import LIFETIMES, CertificateFolder
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.tls.authority import issue_client
from metisfl.tls.holdings import Lifetimes
from metisfl.tls.names import LearnerIdentity
from metisfl.tls.pem import KeyPair, certificates_pem
from metisfl.tls.requests import requested_key
from metisfl_learner.exits import ExitCode, FatalError
from metisfl_learner.security import Passport

UID = "uid-1"
NOW = datetime.now(UTC)
LIFE = timedelta(hours=3)


class Controller:
    """Signs what it is asked to, for place 4 unless told otherwise; may lose its answers."""

    def __init__(self, folder: CertificateFolder) -> None:
        files = folder.controller
        self.issuer = KeyPair((files / "issuer.crt").read_bytes(), (files / "issuer.key").read_bytes()).authority()
        self.requests: list[pb.EnrollRequest] = []
        self.silent = False

    async def enroll(self, request: pb.EnrollRequest) -> pb.EnrollResponse:
        self.requests.append(request)
        if self.silent:
            raise TimeoutError
        ordinal = request.ordinal if request.HasField("ordinal") else 4
        key = requested_key(request.certificate_request)
        certificate = issue_client(self.issuer, LearnerIdentity(UID, "a", ordinal), key, LIFE, NOW)
        chain = certificates_pem([certificate, *self.issuer.chain])
        return pb.EnrollResponse(group="a", ordinal=ordinal, certificate_chain=chain)


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    made = CertificateFolder(tmp_path / "tls")
    made.prepare(UID, ["a", "b"], NOW)
    return made


@pytest.fixture
def passport(folder: CertificateFolder, tmp_path: Path) -> Callable[..., Passport]:
    """As the process makes it at a start, `later` than now."""

    def make(ordinal: int | None = None, later: timedelta = timedelta(), group: str = "a") -> Passport:
        given, moment = folder.learners(group), (NOW + later).timestamp()
        return Passport(given, tmp_path / "state", "a", ordinal, "pod", lambda: moment)

    return make


async def test_a_certificate_is_kept_for_the_next_start_and_for_nobody_else(
    passport: Callable[..., Passport], folder: CertificateFolder, tmp_path: Path
) -> None:
    first = passport()
    assert not first.usable()
    controller = Controller(folder)
    await first.enrol(controller.enroll)
    assert controller.requests[0].instance == "pod"
    again = passport()
    assert again.usable()
    assert again.certified is not None
    assert again.certified.identity == LearnerIdentity(UID, "a", 4)
    (kept,) = (tmp_path / "state" / "tls").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not passport(ordinal=0).usable(), "another place's certificate is not ours"


async def test_an_enrolment_whose_answer_was_lost_is_repeated_with_its_key(
    passport: Callable[..., Passport], folder: CertificateFolder
) -> None:
    controller = Controller(folder)
    controller.silent = True
    with pytest.raises(TimeoutError):
        await passport().enrol(controller.enroll)
    controller.silent = False
    restarted = passport()
    await restarted.enrol(controller.enroll)
    await restarted.enrol(controller.enroll)
    lost, repeated, renewed = (requested_key(request.certificate_request) for request in controller.requests)
    assert lost == repeated
    assert renewed != repeated, "a renewal has a key of its own"


async def test_when_to_renew(passport: Callable[..., Passport], folder: CertificateFolder) -> None:
    await passport().enrol(Controller(folder).enroll)
    assert passport().seconds_to_renewal == pytest.approx(2 * 3600, abs=2)
    pressing = [passport(later=timedelta(minutes=m)).renewal_pressing for m in (0, 119, 140, 155, 175)]
    assert pressing == [False, False, False, True, True]
    assert not passport(later=LIFE).usable()


def test_a_bundle_that_cannot_be_any_good_is_told_before_anybody_is_asked(
    passport: Callable[..., Passport], folder: CertificateFolder, tmp_path: Path
) -> None:
    with pytest.raises(FatalError, match="is for group 'b', METISFL_LEARNER_GROUP is 'a'") as caught:
        passport(group="b")
    assert caught.value.code is ExitCode.SETTINGS
    with pytest.raises(FatalError, match=r"it expired at .* get a new bundle") as caught:
        passport(later=LIFETIMES.bootstrap).bootstrap()
    assert caught.value.code is ExitCode.REFUSED
    (folder.learners("a") / "tls.key").unlink()
    with pytest.raises(FatalError, match="METISFL_TLS_DIR"):
        passport()


async def test_a_certificate_below_another_root_is_let_go(
    passport: Callable[..., Passport], folder: CertificateFolder
) -> None:
    """The federation was created anew, or its root was: the old certificate is of no use, and is not shown."""
    await passport().enrol(Controller(folder).enroll)
    (folder.root / "root" / "tls.crt").unlink()
    folder.prepare(UID, ["a"], NOW, Lifetimes(LIFE, LIFE))
    assert not passport().usable()

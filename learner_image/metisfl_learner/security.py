"""A learner's certificate: enrolled for with the group's bootstrap certificate, kept, and renewed in time.

The learner makes its key itself, and nobody else ever sees it. Key and certificate are one file in the state directory,
replaced as a whole. The key of an enrolment under way is stored before it is asked for, so that one whose answer was
lost is repeated and not begun anew.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from metisfl.files import write_private
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.tls.authority import new_key
from metisfl.tls.names import BootstrapIdentity, IdentityError, LearnerIdentity, server_name
from metisfl.tls.pem import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    SERVER_NAME_FILE,
    KeyPair,
    PemError,
    certificates_pem,
    flaw,
    identity_of,
    key_pem,
    read_certificates,
    read_key,
    renewal_time,
)
from metisfl.tls.requests import make_request
from metisfl_learner.exits import ExitCode, FatalError

_IDENTITY_FILE = "learner.pem"
_NEXT_KEY_FILE = "next.key"

Enroll = Callable[[pb.EnrollRequest], Awaitable[pb.EnrollResponse]]


@dataclass(frozen=True)
class Trust:
    """What the learner was given: whom to believe, and what to enrol with. Certificates and keys are PEM."""

    roots: bytes
    bootstrap: KeyPair
    identity: BootstrapIdentity
    server_name: str

    @classmethod
    def read(cls, folder: Path) -> Trust:
        """Raises FatalError."""
        try:
            roots, certificate, key = ((folder / name).read_bytes() for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE))
            bootstrap = KeyPair(certificate, key)
            read_certificates(roots)
            identity = identity_of(bootstrap.authority().certificate)
            if not isinstance(identity, BootstrapIdentity):
                raise IdentityError(f"{CERTIFICATE_FILE} is {identity.learner}'s and no bootstrap certificate")
            named = folder / SERVER_NAME_FILE
            name = named.read_text().strip() if named.exists() else server_name(identity.federation)
        except (OSError, PemError, IdentityError, ValueError) as error:
            raise FatalError(ExitCode.SETTINGS, f"METISFL_TLS_DIR={folder}: {error}") from error
        return cls(roots, bootstrap, identity, name)

    def credentials(self, of: KeyPair) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.roots, of.key, of.certificate)


@dataclass(frozen=True)
class Certified:
    """A learner's certificate with its key."""

    pair: KeyPair
    identity: LearnerIdentity
    renew_at: datetime
    ends_at: datetime

    @classmethod
    def of(cls, pair: KeyPair) -> Certified:
        """Raises PemError or IdentityError."""
        leaf = pair.authority().certificate
        identity = identity_of(leaf)
        if not isinstance(identity, LearnerIdentity):
            raise IdentityError("not a learner's certificate")
        return cls(pair, identity, renewal_time(leaf), leaf.not_valid_after_utc)


class Passport:
    """This learner's certificate on disk. `ordinal` None: the controller chooses. Blocking calls are short."""

    def __init__(
        self,
        given: Path,
        state: Path,
        group: str,
        ordinal: int | None,
        instance: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`given`: METISFL_TLS_DIR; `state`: METISFL_STATE_DIR. Raises FatalError."""
        self._given = given
        self._folder = state / "tls"
        self._group = group
        self._ordinal = ordinal
        self._instance = instance
        self._now = now
        self.trust = Trust.read(given)
        if self.trust.identity.group != group:
            raise FatalError(
                ExitCode.SETTINGS,
                f"METISFL_TLS_DIR={given}: the bootstrap certificate is for group '{self.trust.identity.group}', "
                f"METISFL_LEARNER_GROUP is '{group}'",
            )
        self.certified = self._kept()

    @property
    def seconds_to_renewal(self) -> float:
        assert self.certified is not None
        return self.certified.renew_at.timestamp() - self._now()

    @property
    def renewal_pressing(self) -> bool:
        """Whether less time is left until the end than has passed since renewal was due."""
        assert self.certified is not None
        return self.certified.ends_at.timestamp() - self._now() < -self.seconds_to_renewal

    def usable(self) -> bool:
        """Whether there is a certificate that the controller should accept."""
        return self.certified is not None and self._flaw(self.certified.pair) is None

    def bootstrap(self) -> grpc.ChannelCredentials:
        """To enrol with. Raises FatalError when they cannot be any good."""
        self.trust = Trust.read(self._given)
        reason = self._flaw(self.trust.bootstrap)
        if reason is not None:
            raise FatalError(
                ExitCode.REFUSED,
                f"the bootstrap certificate in {self._given} cannot be used: {reason}. In a cluster the operator "
                "renews it; elsewhere get a new bundle",
            )
        return self.trust.credentials(self.trust.bootstrap)

    def credentials(self) -> grpc.ChannelCredentials:
        """To take part with; there must be a certificate. Whom to trust is read anew. Raises FatalError."""
        assert self.certified is not None
        self.trust = Trust.read(self._given)
        return self.trust.credentials(self.certified.pair)

    async def enrol(self, enroll: Enroll) -> None:
        """Ask for a certificate, the first or the next one, and keep it. Raises what `enroll` does, and FatalError."""
        key = self._next_key()
        request = pb.EnrollRequest(certificate_request=make_request(key), instance=self._instance)
        if self._ordinal is not None:
            request.ordinal = self._ordinal
        response = await enroll(request)
        pair = KeyPair(response.certificate_chain, key_pem(key))
        try:
            certified = Certified.of(pair)
        except (PemError, IdentityError) as error:
            raise FatalError(
                ExitCode.REFUSED, f"the controller answered Enroll with no certificate: {error}"
            ) from error
        # Its times alone: by whom it is signed is for the controller to judge.
        if (reason := flaw(pair.certificates, pair.certificates[-1:], self._time)) is not None:
            raise FatalError(ExitCode.REFUSED, f"the certificate that Enroll was answered with is no good: {reason}")
        write_private(self._folder / _IDENTITY_FILE, pair.key + pair.certificate)
        (self._folder / _NEXT_KEY_FILE).unlink(missing_ok=True)
        self.certified = certified

    def discard(self) -> None:
        """The controller does not know this certificate."""
        self.certified = None

    def _flaw(self, pair: KeyPair) -> str | None:
        # The controller may have another root than the learners: then what signed the bootstrap certificate counts.
        roots = (*read_certificates(self.trust.roots), *self.trust.bootstrap.certificates[1:])
        return flaw(pair.certificates, roots, self._time)

    @property
    def _time(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)

    def _kept(self) -> Certified | None:
        """From an earlier start; None when there is none, or it is somebody else's."""
        try:
            pem = (self._folder / _IDENTITY_FILE).read_bytes()
            found = Certified.of(KeyPair(certificates_pem(read_certificates(pem)), key_pem(read_key(pem))))
        except (OSError, PemError, IdentityError):
            return None
        wanted = LearnerIdentity(
            self.trust.identity.federation,
            self._group,
            found.identity.ordinal if self._ordinal is None else self._ordinal,
        )
        return found if found.identity == wanted and self._flaw(found.pair) is None else None

    def _next_key(self) -> EllipticCurvePrivateKey:
        """The key of the enrolment under way, from before a restart if need be. Raises FatalError."""
        file = self._folder / _NEXT_KEY_FILE
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if file.exists() and isinstance(kept := read_key(file.read_bytes()), EllipticCurvePrivateKey):
                return kept
            key = new_key()
            write_private(file, key_pem(key))
        except (OSError, PemError) as error:
            raise FatalError(ExitCode.SETTINGS, f"METISFL_STATE_DIR: {self._folder} cannot be used: {error}") from error
        return key


def distrust(words: str) -> str | None:
    """What is wrong, in words for people, when gRPC's say that the other side is not who it should be."""
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return (
            "whoever answers there has no valid certificate of this federation: check the address, and that "
            "METISFL_TLS_DIR is the newest; if both are right, somebody is in between"
        )
    if "Hostname Verification" in words:
        return "whoever answers there is not this federation's controller, going by its certificate: check the address"
    if "WRONG_VERSION_NUMBER" in words:
        return "whoever answers there does not speak TLS: check the address, and spec.security.tls.mode"
    return None

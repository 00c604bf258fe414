"""`spec.security`: how a federation is protected."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from metisfl.spec.fields import ObjectName, SpecModel
from metisfl.spec.rule import Json, Rule
from metisfl.tls.names import server_name

LEARNER_ID_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?-[0-9]{1,5}$"

LearnerId = Annotated[str, StringConstraints(pattern=LEARNER_ID_PATTERN, min_length=3, max_length=26)]


HOST_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

HostName = Annotated[str, StringConstraints(pattern=HOST_NAME_PATTERN, min_length=1, max_length=253)]


class TlsMode(StrEnum):
    AUTO = "Auto"
    CERT_MANAGER = "CertManager"
    SECRET = "Secret"
    DISABLED = "Disabled"


class IssuerKind(StrEnum):
    ISSUER = "Issuer"
    CLUSTER_ISSUER = "ClusterIssuer"


class IssuerRef(SpecModel):
    """What signs: an issuer that can sign authorities, such as one of type CA; ACME cannot."""

    name: ObjectName
    """Of the issuer; one of kind Issuer is in the federation's namespace."""

    kind: IssuerKind = IssuerKind.ISSUER
    """Issuer: of one namespace. ClusterIssuer: of the whole cluster."""


class CertManagerSpec(SpecModel):
    """For mode CertManager."""

    issuer_ref: IssuerRef


class SecretTlsSpec(SpecModel):
    """For mode Secret: Secrets of the federation's namespace, each with tls.crt, tls.key and ca.crt. The operator reads
    them and never writes them."""

    server: ObjectName
    """The controller's certificate. Its ca.crt is what learners trust."""

    client_issuer: ObjectName
    """An authority that signs learners' certificates; it should be able to sign no others. Its ca.crt is the root that
    it leads to."""

    server_name: HostName | None = None
    """DNS name in the controller's certificate. Default: controller.<the Federation's UID>.metisfl.internal."""


class TlsSpec(SpecModel):
    """Mutual TLS between learners and controller."""

    mode: TlsMode = TlsMode.AUTO
    """Auto: the operator makes an authority for this federation, and every learner gets a certificate of its own.
    CertManager: likewise, below an issuer of cert-manager. Secret: likewise, with a server certificate and an authority
    that you bring along. Disabled: learners and controller talk in clear text, and whoever reaches the controller may
    join."""

    cert_manager: CertManagerSpec | None = None
    secret: SecretTlsSpec | None = None

    # A kubelet may take a minute and a half to bring a renewed Secret to the controller: a third of the least is 100 s.
    certificate_seconds: Annotated[int, Field(ge=300, le=31_536_000)] = 604_800
    """Lifetime of the controller's and the learners' certificates; each is renewed when two thirds of it are over."""

    bootstrap_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 2_592_000
    """Lifetime of a group's bootstrap certificate, with which new learners enrol; for so long a bundle is good."""

    @property
    def enabled(self) -> bool:
        return self.mode is not TlsMode.DISABLED

    def server_name(self, uid: str) -> str:
        """The DNS name of the controller of the federation with this UID. Raises IdentityError."""
        given = self.secret.server_name if self.secret else None
        return given or server_name(uid)


class SecuritySpec(SpecModel):
    """How the federation is protected."""

    tls: TlsSpec = TlsSpec()

    revoked: Annotated[
        list[LearnerId], Field(max_length=1000, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Learners, <group>-<ordinal>, that are shut out at once. Their certificates stay worthless when they are taken off
    the list again; they may then enrol anew."""


def _members_fit_the_mode(tls: Json) -> bool:
    mode = tls.get("mode")
    return ("certManager" in tls) == (mode == "CertManager") and ("secret" in tls) == (mode == "Secret")


def _revoked_once(security: Json) -> bool:
    revoked = security.get("revoked", [])
    return len(revoked) == len(set(revoked))


RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec", "security", "tls"),
        message="certManager is for mode CertManager, secret for mode Secret, and each mode needs its own",
        holds=_members_fit_the_mode,
        cel="has(self.certManager) == (self.mode == 'CertManager') && has(self.secret) == (self.mode == 'Secret')",
    ),
    Rule(
        path=("spec", "security"),
        message="revoked must name each learner once",
        holds=_revoked_once,
        # The API server refuses duplicates itself: the list's type is set.
        cel="",
    ),
)

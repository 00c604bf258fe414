"""Which Secrets a federation should have now: kept as they are, made where they are missing, renewed in time."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from metisfl.api.access import TOKEN_FILE
from metisfl.spec import Federation
from metisfl.spec.security import TlsMode
from metisfl.tls.holdings import Lifetimes, maintained, maintained_bootstraps
from metisfl.tls.pem import CA_FILE, PemError, flaw, is_for_host, read_certificates
from metisfl_operator import names
from metisfl_operator.kube import Kube
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.reconcile.trouble import Trouble
from metisfl_operator.resources import cert_manager
from metisfl_operator.resources.metadata import Manifest, Owner, stamped
from metisfl_operator.resources.secrets import (
    bootstrap_secrets,
    certificate_secrets,
    content_of,
    held_bootstraps,
    held_certificates,
    pair_of,
    secret,
    token_of,
)

_TOKEN_BYTES = 32

Children = Mapping[tuple[str, str], Manifest]


class CertificatesError(Exception):
    """Without certificates that can be used, nothing else is to be changed."""

    def __init__(self, reason: Reason, name: str, words: str) -> None:
        super().__init__(words)
        self.trouble = Trouble(reason, f"Secret {name}", words)


@dataclass(frozen=True)
class Given:
    """Secrets that the operator reads and does not write, in modes CertManager and Secret."""

    server: Manifest | None = None
    issuer: Manifest | None = None


def given_secrets(kube: Kube, federation: Federation, owner: Owner) -> Given:
    """Raises KubeError."""
    tls = federation.spec.security.tls
    if tls.mode not in (TlsMode.CERT_MANAGER, TlsMode.SECRET):
        return Given()
    server, issuer = names.server_secret(owner.name, tls), names.issuer_secret(owner.name, tls)
    return Given(kube.get("Secret", owner.namespace, server), kube.get("Secret", owner.namespace, issuer))


def certificate_requests(federation: Federation, owner: Owner) -> list[Manifest]:
    """What cert-manager is asked for; it takes its time to answer."""
    tls = federation.spec.security.tls
    wanted = cert_manager.certificates(owner, tls) if tls.mode is TlsMode.CERT_MANAGER else []
    return [stamped(manifest) for manifest in wanted]


def wanted_secrets(
    federation: Federation, owner: Owner, children: Children, given: Given, now: datetime
) -> list[Manifest]:
    """`children`: what there is of the operator's own. Raises CertificatesError."""
    token = token_of(children, owner.name) or secrets.token_urlsafe(_TOKEN_BYTES)
    wanted = [secret(owner, names.token_secret(owner.name), {TOKEN_FILE: token.encode()})]
    match federation.spec.security.tls.mode:
        case TlsMode.AUTO:
            wanted += _own(federation, owner, children, now)
        case TlsMode.CERT_MANAGER | TlsMode.SECRET:
            wanted += _below(federation, owner, children, given, now)
        case TlsMode.DISABLED:
            pass
    return [stamped(manifest) for manifest in wanted]


def _own(federation: Federation, owner: Owner, children: Children, now: datetime) -> list[Manifest]:
    """The whole hierarchy."""
    tls, groups = federation.spec.security.tls, _groups(federation)
    lifetimes = Lifetimes(timedelta(seconds=tls.certificate_seconds), timedelta(seconds=tls.bootstrap_seconds))
    try:
        complete = maintained(held_certificates(children, owner.name, groups), owner.uid, groups, lifetimes, now)
    except PemError as error:
        # Another root would cut off every learner that has the old one: not for us to decide.
        words = f"{error}; restore it from a backup, or delete it, and all learners have to enrol anew"
        raise CertificatesError(Reason.CERTIFICATES_UNUSABLE, names.root_secret(owner.name), words) from error
    return certificate_secrets(owner, complete, tls.server_name(owner.uid))


def _below(federation: Federation, owner: Owner, children: Children, given: Given, now: datetime) -> list[Manifest]:
    """Bootstrap certificates below an issuer that somebody else has made."""
    tls, groups = federation.spec.security.tls, _groups(federation)
    server_name = names.server_secret(owner.name, tls)
    server = _check(server_name, given.server, now)
    if not is_for_host(pair_of(server).certificates[0], tls.server_name(owner.uid)):
        words = f"its certificate is not for {tls.server_name(owner.uid)}; see security.tls.secret.serverName"
        raise CertificatesError(Reason.CERTIFICATES_UNUSABLE, server_name, words)
    issuer_name = names.issuer_secret(owner.name, tls)
    issuer = _check(issuer_name, given.issuer, now)
    try:
        authority = pair_of(issuer).authority()
    except PemError as error:
        raise CertificatesError(Reason.CERTIFICATES_UNUSABLE, issuer_name, str(error)) from error
    lifetime = timedelta(seconds=tls.bootstrap_seconds)
    held = held_bootstraps(children, owner.name, groups)
    made = maintained_bootstraps(held, authority, owner.uid, groups, lifetime, now)
    return bootstrap_secrets(owner, made, content_of(server, CA_FILE), tls.server_name(owner.uid))


def _check(name: str, found: Manifest | None, now: datetime) -> Manifest:
    """A Secret with a certificate that leads to its own root. Raises CertificatesError."""
    if found is None:
        raise CertificatesError(Reason.CERTIFICATES_MISSING, name, "is not there (yet)")
    try:
        wrong = flaw(pair_of(found).certificates, read_certificates(content_of(found, CA_FILE)), now)
    except PemError as error:
        wrong = f"{error}; it needs tls.crt, tls.key and ca.crt"
    if wrong is not None:
        raise CertificatesError(Reason.CERTIFICATES_UNUSABLE, name, f"its certificate cannot be used: {wrong}")
    return found


def _groups(federation: Federation) -> list[str]:
    return [group.name for group in federation.spec.learner_groups]

"""Certificates and keys as PEM, the file names they go by, and the lifetime that is in a certificate."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from metisfl.tls.authority import BACKDATED, Authority, PrivateKey
from metisfl.tls.names import Identity, IdentityError, parse_identity

# As in Kubernetes Secrets of type kubernetes.io/tls, and as cert-manager writes them.
CA_FILE = "ca.crt"
CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
# Beside them for a learner, where the controller's certificate has another name than the federation's own.
SERVER_NAME_FILE = "server-name"
# Beside them in the controller's folder: the client issuer.
ISSUER_CERTIFICATE_FILE = "issuer.crt"
ISSUER_KEY_FILE = "issuer.key"


class PemError(ValueError):
    """Not what it should be: no PEM, no key of a kind that is used here, or a key and a certificate that differ."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate with what leads from it to the root, leaf first and without the root, and its key; both PEM."""

    certificate: bytes
    key: bytes

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Raises PemError."""
        return read_certificates(self.certificate)

    def authority(self) -> Authority:
        """For signing. Raises PemError when certificate and key do not belong together."""
        leaf, *above = self.certificates
        key = read_key(self.key)
        if key.public_key() != leaf.public_key():
            raise PemError("the key is not the certificate's")
        return Authority(leaf, key, tuple(c for c in above if c.issuer != c.subject))


def pair(certificates: Sequence[x509.Certificate], key: PrivateKey) -> KeyPair:
    return KeyPair(certificates_pem(certificates), key_pem(key))


def certificates_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_pem(key: PrivateKey) -> bytes:
    """PKCS #8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """At least one. Raises PemError."""
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise PemError(f"no certificate in PEM form: {error}") from error


def read_key(pem: bytes) -> PrivateKey:
    """Raises PemError for anything but an elliptic-curve or RSA key without a password."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise PemError(f"no private key in PEM form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PemError(f"a key of kind {type(key).__name__} is not supported: use an elliptic-curve or RSA key")
    return key


def identity_of(certificate: x509.Certificate) -> Identity:
    """Whom a client certificate names. Raises IdentityError."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate has no alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError(f"the certificate has {len(uris)} URIs among its names; one says whom it is for")
    return parse_identity(uris[0])


def is_for_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether a server's certificate has this DNS name, or a wildcard for its first label."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    hosts = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return not hosts.isdisjoint({host.lower(), f"*.{host.lower().partition('.')[2]}"})


def renewal_time(certificate: x509.Certificate) -> datetime:
    """When two thirds of its life are over."""
    made, end = certificate.not_valid_before_utc + BACKDATED, certificate.not_valid_after_utc
    return made + (end - made) * 2 / 3


def flaw(chain: Sequence[x509.Certificate], roots: Iterable[x509.Certificate], now: datetime) -> str | None:
    """Why a peer that trusts `roots` will refuse this chain, leaf first; None when it should not.

    For telling people: what counts is the peer's own check.
    """
    for certificate in chain:
        if now >= certificate.not_valid_after_utc:
            return f"it expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
        if now < certificate.not_valid_before_utc:
            return f"it begins at {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC: check this machine's clock"
    for certificate, above in itertools.pairwise(chain):
        if not issued_by(certificate, above):
            return f"{above.subject.rfc4514_string()} has not signed it"
    if not any(chain[-1] == root or issued_by(chain[-1], root) for root in roots):
        return "another authority than this federation's has signed it"
    return None


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True

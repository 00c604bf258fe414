"""The certificate at the other end of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import grpc
from cryptography import x509

from metisfl.tls.names import Identity
from metisfl.tls.pem import identity_of
from metisfl.tls.requests import fingerprint


@dataclass(frozen=True)
class Peer:
    """Who calls; gRPC has checked that the caller has the certificate's key, and that the certificate leads to the root
    and was valid when the connection was opened."""

    identity: Identity
    certificate: x509.Certificate
    serial: str
    """Hexadecimal."""
    key: str
    """Fingerprint of the public key."""


def peer(context: grpc.aio.ServicerContext) -> Peer | None:
    """None on a connection without TLS. Raises IdentityError for a certificate that is not a learner's."""
    pem = context.auth_context().get("x509_pem_cert")
    return _read(bytes(pem[0])) if pem else None


@lru_cache(maxsize=16_384)
def _read(pem: bytes) -> Peer:
    certificate = x509.load_pem_x509_certificate(pem)
    key = fingerprint(certificate.public_key())
    return Peer(identity_of(certificate), certificate, f"{certificate.serial_number:x}", key)

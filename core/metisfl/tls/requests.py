"""Certificate signing requests (PKCS #10, DER): how a learner hands over its public key and proves to have the other.

Everything but the key is ignored: whom the certificate names is for its issuer to say.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from metisfl.tls.authority import PublicKey

MAX_REQUEST_BYTES = 4096


class RequestError(ValueError):
    """A request that no certificate can be issued for."""


def make_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def requested_key(request: bytes) -> PublicKey:
    """The key to certify. Raises RequestError."""
    if len(request) > MAX_REQUEST_BYTES:
        raise RequestError(f"a certificate request of {len(request)} bytes; at most {MAX_REQUEST_BYTES} are read")
    try:
        parsed = x509.load_der_x509_csr(request)
        signed, key = parsed.is_signature_valid, parsed.public_key()
    except (ValueError, TypeError) as error:
        raise RequestError(f"not a certificate request: {error}") from error
    if not signed:
        raise RequestError("the certificate request is not signed with its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestError("a learner's key must be of curve P-256")
    return key


def fingerprint(key: CertificatePublicKeyTypes) -> str:
    """SHA-256 of the public key, in hexadecimal."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from metisfl.tls.authority import new_key
from metisfl.tls.requests import RequestError, fingerprint, make_request, requested_key

KEY = new_key()


def test_a_request_hands_over_the_key() -> None:
    assert requested_key(make_request(KEY)) == KEY.public_key()
    assert fingerprint(KEY.public_key()) != fingerprint(new_key().public_key())


def test_a_request_that_was_tampered_with_is_refused() -> None:
    request = bytearray(make_request(KEY))
    request[-1] ^= 1
    with pytest.raises(RequestError):
        requested_key(bytes(request))


def test_another_curve_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(other, hashes.SHA256())
    with pytest.raises(RequestError, match="P-256"):
        requested_key(request.public_bytes(serialization.Encoding.DER))


@given(st.binary(max_size=5000))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError):
        requested_key(data)

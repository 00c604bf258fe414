"""Makes certificates: P-256 keys, SHA-256, X.509 version 3 as RFC 5280 wants it.

Every certificate begins five minutes before it is made, as clocks differ; its *lifetime* counts from its making, and no
certificate outlives its issuer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from metisfl.tls.names import Identity, LearnerIdentity, server_name

BACKDATED = timedelta(minutes=5)
_COMMON_NAME_LENGTH = 64

PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""RSA is for authorities that somebody brings along."""


@dataclass(frozen=True)
class Authority:
    """A certificate that others can be signed with. `above`: what leads from it to the root, without the root."""

    certificate: x509.Certificate
    key: PrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What a certificate made with it is sent along with, so that it can be followed to the root."""
        return (self.certificate, *self.above)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_root(federation: str, lifetime: timedelta, now: datetime) -> Authority:
    """The root of a federation, by UID. Below it there may be one more authority."""
    key, name = new_key(), _name(f"metisfl root {federation}")
    builder = _authority(_builder(name, key.public_key(), lifetime, now), 1).issuer_name(name)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def make_client_issuer(root: Authority, federation: str, lifetime: timedelta, now: datetime) -> Authority:
    """Signs certificates of clients, and of nothing else: neither of servers nor of further authorities."""
    key = new_key()
    builder = _authority(_builder(_name(f"metisfl clients {federation}"), key.public_key(), lifetime, now, root), 0)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    above = () if root.certificate.issuer == root.certificate.subject else root.chain
    return Authority(_signed(builder, root), key, above)


def issue_server(
    root: Authority, federation: str, key: PublicKey, lifetime: timedelta, now: datetime
) -> x509.Certificate:
    """The controller's own, for the federation's server name. Raises IdentityError."""
    name = server_name(federation)
    builder = _leaf(_builder(_name("metisfl controller"), key, lifetime, now, root), ExtendedKeyUsageOID.SERVER_AUTH)
    return _signed(builder.add_extension(_alternative(x509.DNSName(name)), critical=False), root)


def issue_client(
    issuer: Authority, identity: Identity, key: PublicKey, lifetime: timedelta, now: datetime
) -> x509.Certificate:
    """A learner's certificate, or the bootstrap certificate of a group."""
    name = identity.learner if isinstance(identity, LearnerIdentity) else f"{identity.group} bootstrap"
    builder = _leaf(_builder(_name(name), key, lifetime, now, issuer), ExtendedKeyUsageOID.CLIENT_AUTH)
    uri = x509.UniformResourceIdentifier(identity.uri)
    return _signed(builder.add_extension(_alternative(uri), critical=False), issuer)


def _builder(
    subject: x509.Name, key: PublicKey, lifetime: timedelta, now: datetime, issuer: Authority | None = None
) -> x509.CertificateBuilder:
    ends = now + lifetime
    if issuer is not None:
        ends = min(ends, issuer.certificate.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True).add_extension(
        _key_usage(authority=True), critical=True
    )


def _leaf(builder: x509.CertificateBuilder, usage: x509.ObjectIdentifier) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, by: Authority) -> x509.Certificate:
    key_identifier = by.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        builder.issuer_name(by.certificate.subject)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier), critical=False)
        .sign(by.key, hashes.SHA256())
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:_COMMON_NAME_LENGTH])])


def _alternative(name: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([name])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )

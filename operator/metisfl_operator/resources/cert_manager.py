"""What cert-manager is asked for: the controller's certificate, and the authority that signs learners'."""

from __future__ import annotations

from typing import Any

from metisfl.spec.security import IssuerRef, TlsSpec
from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, metadata

GROUP = "cert-manager.io"
SHORTEST_SECONDS = 3600
"""cert-manager issues nothing that ends sooner."""

ISSUER_SECONDS = 730 * 86_400


def certificates(owner: Owner, tls: TlsSpec) -> list[Manifest]:
    """Two Certificates, whose Secrets have the names that they have in mode Auto."""
    assert tls.cert_manager is not None
    issuer = tls.cert_manager.issuer_ref
    return [
        _certificate(
            owner,
            names.server_secret(owner.name, tls),
            issuer,
            max(tls.certificate_seconds, SHORTEST_SECONDS),
            dnsNames=[tls.server_name(owner.uid)],
            usages=["digital signature", "server auth"],
        ),
        _certificate(
            owner,
            names.issuer_secret(owner.name, tls),
            issuer,
            ISSUER_SECONDS,
            isCA=True,
            usages=["cert sign", "crl sign", "client auth"],
        ),
    ]


def _certificate(owner: Owner, name: str, issuer: IssuerRef, seconds: int, **fields: Any) -> Manifest:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Certificate",
        "metadata": metadata(owner, name, names.labels(owner.name, names.CONTROLLER)),
        "spec": {
            "secretName": name,
            "commonName": f"metisfl {name}"[:64],
            "duration": f"{seconds}s",
            "renewBefore": f"{seconds // 3}s",
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"name": issuer.name, "kind": issuer.kind.value, "group": GROUP},
            **fields,
        },
    }

"""The Secrets of a federation, from what is in them and back.

<federation>-ca                 the root: read by the operator alone, mounted nowhere
<federation>-client-issuer      what the controller signs learners' certificates with
<federation>-controller-tls     the controller's own certificate
<federation>-<group>-bootstrap  what a group's learners enrol with; a bundle is made of it
<federation>-api-token          what the controller's REST side asks for
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from metisfl.api.access import TOKEN_FILE
from metisfl.tls.holdings import Complete, Holdings
from metisfl.tls.pem import CA_FILE, CERTIFICATE_FILE, KEY_FILE, KeyPair
from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, metadata


def secret(owner: Owner, name: str, content: Mapping[str, bytes], group: str | None = None) -> Manifest:
    """`group`: whose learners mount it; None for what concerns the controller."""
    component = names.CONTROLLER if group is None else names.LEARNER
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(owner, name, names.labels(owner.name, component, group)),
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
    }


def certificate_secrets(owner: Owner, complete: Complete) -> list[Manifest]:
    name, root = owner.name, complete.root.certificate
    return [
        secret(owner, names.root_secret(name), _content(complete.root, root)),
        secret(owner, names.issuer_secret(name), _content(complete.issuer, root)),
        secret(owner, names.server_secret(name), _content(complete.server, root)),
        *(
            secret(owner, names.bootstrap_secret(name, group), _content(held, root), group)
            for group, held in complete.bootstraps.items()
        ),
    ]


def held_certificates(children: Mapping[tuple[str, str], Manifest], federation: str, groups: list[str]) -> Holdings:
    """What the Secrets among `children` hold; one without its keys counts as damaged, and not as missing."""
    bootstraps = {group: _pair(children, names.bootstrap_secret(federation, group)) for group in groups}
    return Holdings(
        _pair(children, names.root_secret(federation)),
        _pair(children, names.issuer_secret(federation)),
        _pair(children, names.server_secret(federation)),
        {group: pair for group, pair in bootstraps.items() if pair is not None},
    )


def content_of(manifest: Manifest, key: str) -> bytes:
    """Empty when it is not there, or is not base64."""
    try:
        return base64.b64decode(manifest.get("data", {}).get(key, ""), validate=True)
    except (binascii.Error, TypeError):
        return b""


def token_of(children: Mapping[tuple[str, str], Manifest], federation: str) -> str | None:
    """The token of the controller's REST side, once there is one."""
    found = children.get(("Secret", names.token_secret(federation)))
    return content_of(found, TOKEN_FILE).decode(errors="replace") or None if found else None


def _pair(children: Mapping[tuple[str, str], Manifest], name: str) -> KeyPair | None:
    found = children.get(("Secret", name))
    return None if found is None else KeyPair(content_of(found, CERTIFICATE_FILE), content_of(found, KEY_FILE))


def _content(pair: KeyPair, root: bytes) -> dict[str, bytes]:
    return {CA_FILE: root, CERTIFICATE_FILE: pair.certificate, KEY_FILE: pair.key}

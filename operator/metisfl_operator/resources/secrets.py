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
from collections.abc import Iterable, Mapping

from metisfl.api.access import TOKEN_FILE
from metisfl.spec.security import TlsSpec
from metisfl.tls.holdings import Complete, Holdings
from metisfl.tls.pem import CA_FILE, CERTIFICATE_FILE, KEY_FILE, SERVER_NAME_FILE, KeyPair
from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, metadata

Children = Mapping[tuple[str, str], Manifest]
"""A federation's objects by kind and name."""


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


def certificate_secrets(owner: Owner, complete: Complete, server_name: str) -> list[Manifest]:
    """All of mode Auto."""
    name, root, own = owner.name, complete.root.certificate, TlsSpec()
    return [
        secret(owner, names.root_secret(name), _content(complete.root, root)),
        secret(owner, names.issuer_secret(name, own), _content(complete.issuer, root)),
        secret(owner, names.server_secret(name, own), _content(complete.server, root)),
        *bootstrap_secrets(owner, complete.bootstraps, root, server_name),
    ]


def bootstrap_secrets(owner: Owner, bootstraps: Mapping[str, KeyPair], root: bytes, server_name: str) -> list[Manifest]:
    """`root`: what learners trust, PEM; `server_name`: what they ask for."""
    named = {SERVER_NAME_FILE: server_name.encode()}
    return [
        secret(owner, names.bootstrap_secret(owner.name, group), {**_content(held, root), **named}, group)
        for group, held in bootstraps.items()
    ]


def held_certificates(children: Children, federation: str, groups: Iterable[str]) -> Holdings:
    """What the Secrets among `children` hold; one without its keys counts as damaged, and not as missing."""
    own = TlsSpec()
    return Holdings(
        _pair(children, names.root_secret(federation)),
        _pair(children, names.issuer_secret(federation, own)),
        _pair(children, names.server_secret(federation, own)),
        held_bootstraps(children, federation, groups),
    )


def held_bootstraps(children: Children, federation: str, groups: Iterable[str]) -> dict[str, KeyPair]:
    found = {group: _pair(children, names.bootstrap_secret(federation, group)) for group in groups}
    return {group: pair for group, pair in found.items() if pair is not None}


def pair_of(manifest: Manifest) -> KeyPair:
    return KeyPair(content_of(manifest, CERTIFICATE_FILE), content_of(manifest, KEY_FILE))


def content_of(manifest: Manifest, key: str) -> bytes:
    """Empty when it is not there, or is not base64."""
    try:
        return base64.b64decode(manifest.get("data", {}).get(key, ""), validate=True)
    except (binascii.Error, TypeError):
        return b""


def token_of(children: Children, federation: str) -> str | None:
    """The token of the controller's REST side, once there is one."""
    found = children.get(("Secret", names.token_secret(federation)))
    return content_of(found, TOKEN_FILE).decode(errors="replace") or None if found else None


def _pair(children: Children, name: str) -> KeyPair | None:
    found = children.get(("Secret", name))
    return None if found is None else pair_of(found)


def _content(pair: KeyPair, root: bytes) -> dict[str, bytes]:
    return {CA_FILE: root, CERTIFICATE_FILE: pair.certificate, KEY_FILE: pair.key}

"""Which Secrets a federation should have now: kept as they are, made where they are missing, renewed in time."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from metisfl.api.access import TOKEN_FILE
from metisfl.spec import Federation
from metisfl.spec.security import TlsMode
from metisfl.tls.holdings import Lifetimes, maintained
from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, stamped
from metisfl_operator.resources.secrets import certificate_secrets, held_certificates, secret, token_of

_TOKEN_BYTES = 32


def wanted_secrets(
    federation: Federation, owner: Owner, children: Mapping[tuple[str, str], Manifest], now: datetime
) -> list[Manifest]:
    """`children`: what there is. Raises PemError when the root cannot be read: replacing it is not for us to decide, as
    it would cut off every learner that has the old one."""
    token = token_of(children, owner.name) or secrets.token_urlsafe(_TOKEN_BYTES)
    wanted = [secret(owner, names.token_secret(owner.name), {TOKEN_FILE: token.encode()})]
    tls = federation.spec.security.tls
    if tls.mode is TlsMode.AUTO:
        groups = [group.name for group in federation.spec.learner_groups]
        held = held_certificates(children, owner.name, groups)
        lifetimes = Lifetimes(timedelta(seconds=tls.certificate_seconds), timedelta(seconds=tls.bootstrap_seconds))
        wanted += certificate_secrets(owner, maintained(held, owner.uid, groups, lifetimes, now))
    return [stamped(manifest) for manifest in wanted]

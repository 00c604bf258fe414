"""What whoever sets a federation up keeps for it: made where it is missing, renewed at two thirds of its life.

Kubernetes Secrets hold it in a cluster, files in a run's folder on one machine; this is the part they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from metisfl.tls.authority import Authority, issue_client, issue_server, make_client_issuer, make_root, new_key
from metisfl.tls.names import BootstrapIdentity
from metisfl.tls.pem import KeyPair, PemError, issued_by, pair, read_key, renewal_time

ROOT_LIFETIME = timedelta(days=3650)
ISSUER_LIFETIME = timedelta(days=730)


@dataclass(frozen=True)
class Lifetimes:
    """Of what is renewed often: the server's certificate, and the bootstrap certificates."""

    server: timedelta
    bootstrap: timedelta


@dataclass(frozen=True)
class Holdings:
    """`bootstraps` by learner group. What is None, or not there, has not been made yet."""

    root: KeyPair | None = None
    issuer: KeyPair | None = None
    server: KeyPair | None = None
    bootstraps: Mapping[str, KeyPair] = field(default_factory=dict)


@dataclass(frozen=True)
class Complete:
    """Holdings in which nothing is missing."""

    root: KeyPair
    issuer: KeyPair
    server: KeyPair
    bootstraps: Mapping[str, KeyPair]


def maintained(held: Holdings, federation: str, groups: Iterable[str], lifetimes: Lifetimes, now: datetime) -> Complete:
    """What is held, with what is missing, damaged, or due for renewal made anew.

    Whatever is not signed by what is above it counts as damaged. The root is kept until its end: another one would cut
    off every learner that has the old one. Raises PemError when the root cannot be read: it is not for us to replace.
    """
    root = held.root.authority() if held.root else None
    if root is None or now >= root.certificate.not_valid_after_utc:
        root = make_root(federation, ROOT_LIFETIME, now)
        root_pair = pair([root.certificate], root.key)
    else:
        assert held.root is not None
        root_pair = held.root
    issuer_pair = held.issuer
    if issuer_pair is None or not _good(issuer_pair, root, now):
        made = make_client_issuer(root, federation, ISSUER_LIFETIME, now)
        issuer_pair = pair(made.chain, made.key)
    server = held.server
    if server is None or not _good(server, root, now):
        key = new_key()
        server = pair([issue_server(root, federation, key.public_key(), lifetimes.server, now)], key)
    bootstraps = maintained_bootstraps(
        held.bootstraps, issuer_pair.authority(), federation, groups, lifetimes.bootstrap, now
    )
    return Complete(root_pair, issuer_pair, server, bootstraps)


def maintained_bootstraps(
    held: Mapping[str, KeyPair],
    issuer: Authority,
    federation: str,
    groups: Iterable[str],
    lifetime: timedelta,
    now: datetime,
) -> dict[str, KeyPair]:
    """A good bootstrap certificate for each of the groups."""
    return {
        group: held[group]
        if group in held and _good(held[group], issuer, now)
        else new_bootstrap(issuer, federation, group, lifetime, now)
        for group in groups
    }


def new_bootstrap(issuer: Authority, federation: str, group: str, lifetime: timedelta, now: datetime) -> KeyPair:
    """With a key of its own. It opens the Enroll call, and nothing else, for learners of `group`."""
    key = new_key()
    identity = BootstrapIdentity(federation, group)
    certificate = issue_client(issuer, identity, key.public_key(), lifetime, now)
    return pair([certificate, *issuer.chain], key)


def _good(held: KeyPair, by: Authority, now: datetime) -> bool:
    """Whether it can be kept: readable, signed by `by`, and not yet due for renewal."""
    try:
        leaf = held.certificates[0]
        matching = read_key(held.key).public_key() == leaf.public_key()
    except PemError:
        return False
    return matching and issued_by(leaf, by.certificate) and now < renewal_time(leaf)

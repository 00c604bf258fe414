"""The Secrets of a federation over its life, as the API server would hand them back."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from metisfl.spec import Federation
from metisfl.tls.authority import Authority, issue_server, make_client_issuer, make_root, new_key
from metisfl.tls.names import BootstrapIdentity
from metisfl.tls.pem import certificates_pem, flaw, identity_of, key_pem, read_certificates
from metisfl_operator.reconcile.announcements import Announcements, instances
from metisfl_operator.reconcile.certificates import CertificatesError, Given, certificate_requests, wanted_secrets
from metisfl_operator.reconcile.observe import Observed
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.resources.metadata import Owner
from metisfl_operator.resources.secrets import content_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
AUTO = {"tls": {"mode": "Auto", "certificateSeconds": 3 * 86_400, "bootstrapSeconds": 9 * 86_400}}

Children = dict[tuple[str, str], dict[str, Any]]
Build = Callable[..., Federation]


@pytest.fixture
def owner() -> Owner:
    return Owner("demo", "lab", "u-1")


def pass_over(federation: Federation, owner: Owner, held: Children, now: datetime = NOW) -> Children:
    wanted = wanted_secrets(federation, owner, held, Given(), now)
    return {(m["kind"], m["metadata"]["name"]): m for m in wanted}


def changed(before: Children, after: Children) -> set[str]:
    return {
        name for (_, name) in before.keys() | after.keys() if before.get(("Secret", name)) != after[("Secret", name)]
    }


def test_the_first_pass_makes_everything_and_the_next_nothing(federation: Build, owner: Owner) -> None:
    found = federation(security=AUTO)
    first = pass_over(found, owner, {})
    assert {name for _, name in first} == {
        "demo-api-token",
        "demo-ca",
        "demo-client-issuer",
        "demo-controller-tls",
        "demo-a-bootstrap",
        "demo-b-bootstrap",
    }
    for manifest in first.values():
        assert manifest["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert pass_over(found, owner, first, NOW + 2 * DAY - timedelta(seconds=1)) == first


def test_each_certificate_is_renewed_at_two_thirds_and_the_root_is_not(federation: Build, owner: Owner) -> None:
    found = federation(security=AUTO)
    first = pass_over(found, owner, {})
    second = pass_over(found, owner, first, NOW + 2 * DAY)
    assert changed(first, second) == {"demo-controller-tls"}
    third = pass_over(found, owner, second, NOW + 6 * DAY)
    assert changed(second, third) == {"demo-controller-tls", "demo-a-bootstrap", "demo-b-bootstrap"}


def test_a_bundle_is_for_its_group_and_leads_to_the_root(federation: Build, owner: Owner) -> None:
    bundle = pass_over(federation(security=AUTO), owner, {})["Secret", "demo-b-bootstrap"]
    chain = read_certificates(content_of(bundle, "tls.crt"))
    assert identity_of(chain[0]) == BootstrapIdentity("u-1", "b")
    assert flaw(chain, read_certificates(content_of(bundle, "ca.crt")), NOW) is None


def test_a_secret_that_was_deleted_or_damaged_comes_back(federation: Build, owner: Owner) -> None:
    found = federation(security=AUTO)
    first = pass_over(found, owner, {})
    del first["Secret", "demo-a-bootstrap"]
    first["Secret", "demo-controller-tls"]["data"] = {"tls.crt": "?"}
    second = pass_over(found, owner, first)
    assert changed(first, second) == {"demo-a-bootstrap", "demo-controller-tls"}


def test_a_damaged_root_is_left_alone(federation: Build, owner: Owner) -> None:
    found = federation(security=AUTO)
    held = pass_over(found, owner, {})
    held["Secret", "demo-ca"]["data"] = {}
    with pytest.raises(CertificatesError, match="restore it"):
        wanted_secrets(found, owner, held, Given(), NOW)


def test_without_tls_there_is_a_token_alone(federation: Build, owner: Owner) -> None:
    found = federation(security={"tls": {"mode": "Disabled"}})
    first = pass_over(found, owner, {})
    assert {name for _, name in first} == {"demo-api-token"}
    assert len(content_of(first["Secret", "demo-api-token"], "token")) >= 32
    assert pass_over(found, owner, first) == first


class Source:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []

    def announce(self, host: str, token: str | None, told: dict[str, str]) -> None:
        assert (host, token) == ("10.0.0.1", "t")
        self.told.append(told)


class Document:
    incarnation = 1


def test_pods_of_our_workloads_are_announced_once(owner: Owner) -> None:
    observed = Observed(
        {("StatefulSet", "demo-a"): {"metadata": {"uid": "set"}}},
        [pod("demo-a-0", "p-0", "set"), pod("demo-a-1", "p-1", "somebody else's")],
        document=Document(),  # type: ignore[arg-type]
        address="10.0.0.1",
        token="t",
    )
    assert instances(owner, observed) == {"a-0": "p-0"}
    source = Source()
    announcements = Announcements(source)  # type: ignore[arg-type]
    for _ in range(2):
        assert announcements.announce(owner, observed) == ""
    assert source.told == [{"a-0": "p-0"}]


def pod(name: str, uid: str, workload: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": uid,
            "labels": {"app.kubernetes.io/component": "learner"},
            "ownerReferences": [{"uid": workload}],
        }
    }


# ---- certificates that others make

ELSEWHERE = make_root("company", 900 * DAY, NOW)
CLIENTS_ROOT = make_root("clients", 900 * DAY, NOW)
CLIENTS = make_client_issuer(CLIENTS_ROOT, "clients", 800 * DAY, NOW)


def made_elsewhere(server_root: Authority = ELSEWHERE, ends: timedelta = 90 * DAY) -> Given:
    """A server's certificate and a client issuer, of two different roots."""
    key = new_key()
    server = issue_server(server_root, "u-1", key.public_key(), ends, NOW)
    root = certificates_pem([server_root.certificate])
    issuer, issuer_root = certificates_pem([CLIENTS.certificate]), certificates_pem([CLIENTS_ROOT.certificate])
    return Given(
        in_secret({"ca.crt": root, "tls.crt": certificates_pem([server]), "tls.key": key_pem(key)}),
        in_secret({"ca.crt": issuer_root, "tls.crt": issuer, "tls.key": key_pem(CLIENTS.key)}),
    )


def in_secret(content: dict[str, bytes]) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(value).decode() for key, value in content.items()}}


SERVER_NAME = "controller.u-1.metisfl.internal"
BROUGHT = {"tls": {"mode": "Secret", "secret": {"server": "s", "clientIssuer": "c", "serverName": SERVER_NAME}}}


def test_bundles_are_made_below_an_issuer_that_was_brought_along(federation: Build, owner: Owner) -> None:
    given = made_elsewhere()
    wanted = wanted_secrets(federation(security=BROUGHT), owner, {}, given, NOW)
    found = {m["metadata"]["name"]: m for m in wanted}
    assert set(found) == {"demo-api-token", "demo-a-bootstrap", "demo-b-bootstrap"}
    bundle = found["demo-a-bootstrap"]
    assert content_of(bundle, "ca.crt") == content_of(given.server or {}, "ca.crt")
    assert content_of(bundle, "server-name") == SERVER_NAME.encode()
    assert flaw(read_certificates(content_of(bundle, "tls.crt")), [CLIENTS_ROOT.certificate], NOW) is None
    held = {("Secret", name): manifest for name, manifest in found.items()}
    assert wanted_secrets(federation(security=BROUGHT), owner, held, given, NOW + DAY) == wanted


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        (Given(), Reason.CERTIFICATES_MISSING, "Secret s: is not there"),
        (Given(made_elsewhere().server), Reason.CERTIFICATES_MISSING, "Secret c: is not there"),
        (
            made_elsewhere(ends=DAY),
            Reason.CERTIFICATES_UNUSABLE,
            "Secret s: its certificate cannot be used: it expired",
        ),
        (
            replace(made_elsewhere(), server=made_elsewhere().issuer),
            Reason.CERTIFICATES_UNUSABLE,
            "is not for controller",
        ),
        (
            replace(made_elsewhere(), server=in_secret({})),
            Reason.CERTIFICATES_UNUSABLE,
            "needs tls.crt, tls.key and ca.crt",
        ),
    ],
    ids=["nothing", "no issuer", "expired", "of another name", "empty"],
)
def test_secrets_that_are_of_no_use_are_told(
    federation: Build, owner: Owner, given: Given, reason: Reason, words: str
) -> None:
    with pytest.raises(CertificatesError) as caught:
        wanted_secrets(federation(security=BROUGHT), owner, {}, given, NOW + 2 * DAY)
    assert caught.value.trouble.reason is reason
    assert words in caught.value.trouble.message


def test_cert_manager_is_asked_for_a_server_and_for_an_issuer_of_clients(federation: Build, owner: Owner) -> None:
    tls = {"mode": "CertManager", "certManager": {"issuerRef": {"name": "company-ca", "kind": "ClusterIssuer"}}}
    found = federation(security={"tls": tls})
    server, issuer = (manifest["spec"] for manifest in certificate_requests(found, owner))
    assert server["dnsNames"] == ["controller.u-1.metisfl.internal"]
    assert server["usages"] == ["digital signature", "server auth"]
    assert (issuer["isCA"], issuer["usages"]) == (True, ["cert sign", "crl sign", "client auth"])
    for spec in (server, issuer):
        assert spec["issuerRef"] == {"name": "company-ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert certificate_requests(federation(), owner) == []

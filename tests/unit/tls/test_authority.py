"""The certificates against cryptography's own verifier, which follows the CA/Browser Forum's rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from metisfl.tls.authority import Authority, issue_client, issue_server, make_client_issuer, make_root, new_key
from metisfl.tls.names import BootstrapIdentity, IdentityError, LearnerIdentity, parse_identity, server_name
from metisfl.tls.pem import PemError, flaw, identity_of, pair, renewal_time

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UID = "4f6c1c1e-9a53-4a57-8a52-0f1f5a2f6a10"
DAY = timedelta(days=1)
ROOT = make_root(UID, 365 * DAY, NOW)
ISSUER = make_client_issuer(ROOT, UID, 100 * DAY, NOW)
KEY = new_key()
LEARNER = LearnerIdentity(UID, "silo-a", 3)


def learner(issuer: Authority = ISSUER, lifetime: timedelta = DAY) -> x509.Certificate:
    return issue_client(issuer, LEARNER, KEY.public_key(), lifetime, NOW)


def policy(root: Authority = ROOT, now: datetime = NOW) -> PolicyBuilder:
    return PolicyBuilder().store(Store([root.certificate])).time(now.replace(tzinfo=None))


def verify_client(leaf: x509.Certificate, above: tuple[x509.Certificate, ...], **options: object) -> list[str]:
    subjects = policy(**options).build_client_verifier().verify(leaf, list(above)).subjects  # type: ignore[arg-type]
    return [subject.value for subject in subjects or []]


def verify_server(leaf: x509.Certificate, above: tuple[x509.Certificate, ...] = (), uid: str = UID) -> None:
    policy().build_server_verifier(x509.DNSName(server_name(uid))).verify(leaf, list(above))


def test_a_learners_chain_is_valid_for_a_client_and_names_the_learner() -> None:
    assert verify_client(learner(), ISSUER.chain) == [f"metisfl://{UID}/learner/silo-a/3"]
    assert identity_of(learner()) == LEARNER
    assert flaw([learner(), *ISSUER.chain], [ROOT.certificate], NOW) is None


def test_the_servers_certificate_is_valid_for_its_name_alone() -> None:
    certificate = issue_server(ROOT, UID, KEY.public_key(), DAY, NOW)
    verify_server(certificate)
    with pytest.raises(VerificationError):
        verify_server(certificate, uid="another")
    with pytest.raises(VerificationError):
        verify_client(certificate, ())


def test_what_the_client_issuer_signs_is_no_server() -> None:
    forged = issue_server(ISSUER, UID, KEY.public_key(), DAY, NOW)
    with pytest.raises(VerificationError):
        verify_server(forged, ISSUER.chain)


def test_the_client_issuer_cannot_make_another_authority() -> None:
    below = make_client_issuer(ISSUER, UID, DAY, NOW)
    with pytest.raises(VerificationError):
        verify_client(learner(below), below.chain)


def test_a_certificate_outlives_neither_its_lifetime_nor_its_issuer() -> None:
    verify_client(learner(), ISSUER.chain, now=NOW + DAY - timedelta(seconds=1))
    with pytest.raises(VerificationError):
        verify_client(learner(), ISSUER.chain, now=NOW + DAY + timedelta(seconds=1))
    assert learner(lifetime=200 * DAY).not_valid_after_utc == ISSUER.certificate.not_valid_after_utc


def test_renewal_is_due_at_two_thirds() -> None:
    assert renewal_time(learner(lifetime=3 * DAY)) == NOW + 2 * DAY
    assert renewal_time(learner(lifetime=timedelta(seconds=3))) == NOW + timedelta(seconds=2)


def test_flaws_are_told_in_words() -> None:
    stranger = make_root(UID, DAY, NOW)
    chain = [learner(), *ISSUER.chain]
    assert "expired at 2026-03-02" in str(flaw(chain, [ROOT.certificate], NOW + 2 * DAY))
    assert "check this machine's clock" in str(flaw(chain, [ROOT.certificate], NOW - DAY))
    assert "another authority" in str(flaw(chain, [stranger.certificate], NOW))
    other = make_client_issuer(ROOT, UID, DAY, NOW)
    assert "has not signed it" in str(flaw([learner(), *other.chain], [ROOT.certificate], NOW))


@pytest.mark.parametrize("identity", [LEARNER, BootstrapIdentity(UID, "a"), LearnerIdentity("u", "g", 0)])
def test_identities_come_back_from_their_uris(identity: LearnerIdentity | BootstrapIdentity) -> None:
    assert parse_identity(identity.uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://u/learner/a/0",
        "metisfl://u/learner/a",
        "metisfl://u/learner/a/00",
        "metisfl://u/learner/a/-1",
        "metisfl://u/learner/a/0/",
        "metisfl://u/learner/a/0\n",
        "metisfl://u/learner/A/0",
        "metisfl://u/bootstrap/a/0",
        "metisfl:///learner/a/0",
        "metisfl://u/bootstrap/a b",
    ],
)
def test_other_uris_name_nobody(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_identity(uri)


def test_a_server_certificate_names_no_learner() -> None:
    with pytest.raises(IdentityError, match="URIs"):
        identity_of(issue_server(ROOT, UID, KEY.public_key(), DAY, NOW))


def test_a_uid_that_is_no_host_name_is_refused() -> None:
    with pytest.raises(IdentityError, match="host name"):
        server_name("no_host")


def test_a_key_of_another_certificate_is_noticed() -> None:
    with pytest.raises(PemError, match="not the certificate's"):
        pair([ISSUER.certificate], new_key()).authority()

"""Made where missing, kept while good, renewed at two thirds; never a root without need."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metisfl.tls.holdings import ISSUER_LIFETIME, ROOT_LIFETIME, Complete, Holdings, Lifetimes, maintained
from metisfl.tls.names import BootstrapIdentity
from metisfl.tls.pem import KeyPair, PemError, flaw, identity_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LIFETIMES = Lifetimes(server=3 * DAY, bootstrap=6 * DAY)
FEDERATION = "uid-1"


def keep(held: Holdings | Complete, now: datetime = NOW, groups: tuple[str, ...] = ("a", "b")) -> Complete:
    holdings = Holdings(held.root, held.issuer, held.server, held.bootstraps)
    return maintained(holdings, FEDERATION, groups, LIFETIMES, now)


FRESH = keep(Holdings())


def roots(held: Complete) -> tuple[object, ...]:
    return held.root.certificates


def test_everything_is_made_at_first_and_all_of_it_fits_together() -> None:
    for held in (FRESH.server, FRESH.issuer, *FRESH.bootstraps.values()):
        assert flaw(held.certificates, FRESH.root.certificates, NOW) is None
    assert {g: identity_of(p.certificates[0]) for g, p in FRESH.bootstraps.items()} == {
        group: BootstrapIdentity(FEDERATION, group) for group in ("a", "b")
    }


def test_what_is_good_is_kept() -> None:
    assert keep(FRESH, NOW + 2 * DAY - timedelta(seconds=1)) == FRESH


def test_each_part_is_renewed_at_two_thirds_of_its_own_life() -> None:
    later = keep(FRESH, NOW + 2 * DAY)
    assert later.server != FRESH.server
    assert (later.root, later.issuer, later.bootstraps) == (FRESH.root, FRESH.issuer, FRESH.bootstraps)
    later = keep(FRESH, NOW + 4 * DAY)
    assert later.bootstraps["a"] != FRESH.bootstraps["a"]
    later = keep(FRESH, NOW + ISSUER_LIFETIME * 2 / 3)
    assert later.issuer != FRESH.issuer
    assert later.root == FRESH.root


def test_groups_come_and_go() -> None:
    grown = keep(FRESH, groups=("b", "c"))
    assert set(grown.bootstraps) == {"b", "c"}
    assert grown.bootstraps["b"] == FRESH.bootstraps["b"]


def test_a_lost_or_ended_root_takes_everything_below_it_along() -> None:
    without = Holdings(None, FRESH.issuer, FRESH.server, FRESH.bootstraps)
    for anew, now in ((keep(without), NOW), (keep(FRESH, NOW + ROOT_LIFETIME), NOW + ROOT_LIFETIME)):
        assert anew.root != FRESH.root
        for held in (anew.server, anew.issuer, *anew.bootstraps.values()):
            assert flaw(held.certificates, anew.root.certificates, now) is None


@pytest.mark.parametrize("damage", [KeyPair(b"", b""), KeyPair(FRESH.server.certificate, FRESH.issuer.key)])
def test_what_is_damaged_below_the_root_is_made_anew(damage: KeyPair) -> None:
    mended = keep(Holdings(FRESH.root, damage, damage, {"a": damage, "b": FRESH.bootstraps["b"]}))
    assert mended.root == FRESH.root
    for held in (mended.server, mended.issuer, *mended.bootstraps.values()):
        assert flaw(held.certificates, FRESH.root.certificates, NOW) is None


def test_a_root_that_cannot_be_read_is_not_replaced() -> None:
    with pytest.raises(PemError):
        keep(Holdings(KeyPair(b"-", b"-"), FRESH.issuer, FRESH.server, FRESH.bootstraps))

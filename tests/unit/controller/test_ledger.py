"""Who may have which certificate, as a table of decisions; and never two holders of one learner, whatever happens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl_controller.security.ledger import (
    MAX_LIVE,
    EnrolmentRefusedError,
    Issued,
    Ledger,
    NotAnnouncedError,
    RevokedError,
    UnknownCertificateError,
)

LIFE = 100.0


class Desk:
    """A ledger, and certificates with serial numbers that count up."""

    def __init__(self, pods: bool = False, revoked: Iterable[str] = ()) -> None:
        self.ledger = Ledger()
        self.ledger.amend({"a": 2, "b": 1}, {"a"} if pods else (), list(revoked), 0.0)
        self.stored: dict[str, Issued] = {}

    def issue(self, now: float, group: str, ordinal: int, key: str, instance: str = "", renews: str = "") -> Issued:
        issued = Issued(f"{len(self.stored):x}", group, ordinal, instance, key, now, now + LIFE, renews)
        self.keep([*self.ledger.add(issued, now)])
        return issued

    def keep(self, changed: Iterable[Issued]) -> None:
        self.stored |= {entry.serial: entry for entry in changed}

    def enrol(self, key: str, ordinal: int | None = 0, instance: str = "", now: float = 0.0) -> Issued:
        return self.issue(now, "a", self.ledger.enrol("a", ordinal, instance, key, now), key, instance)

    def renew(self, issued: Issued, key: str, now: float) -> Issued:
        present = self.ledger.renew(issued.serial, issued.key, key, now)
        return self.issue(now, present.group, present.ordinal, key, present.instance, issued.serial)


def test_a_learner_has_one_first_certificate() -> None:
    desk = Desk()
    desk.enrol("k1")
    desk.enrol("k1")
    with pytest.raises(EnrolmentRefusedError, match="a-0 is enrolled already"):
        desk.enrol("k2")
    desk.enrol("k2", now=LIFE)


def test_places_are_given_out_in_order_and_run_out() -> None:
    desk = Desk()
    assert [desk.enrol(key, None).ordinal for key in ("k0", "k1", "k0")] == [0, 1, 0]
    for ordinal in (None, 2):
        with pytest.raises(EnrolmentRefusedError):
            desk.enrol("k2", ordinal)
    with pytest.raises(EnrolmentRefusedError, match="the groups are a, b"):
        desk.ledger.enrol("c", 0, "", "k", 0.0)


def test_a_certificate_is_renewed_by_one_key() -> None:
    desk = Desk()
    first = desk.enrol("k1")
    second = desk.renew(first, "k2", 60.0)
    desk.renew(first, "k2", 61.0)
    with pytest.raises(EnrolmentRefusedError, match="renewed before, with another key"):
        desk.renew(first, "k3", 62.0)
    desk.renew(second, "k3", 120.0)
    with pytest.raises(UnknownCertificateError):
        desk.renew(first, "k2", LIFE)


def test_a_serial_number_is_good_with_its_key_alone() -> None:
    desk = Desk()
    issued = desk.enrol("k1")
    with pytest.raises(UnknownCertificateError):
        desk.ledger.recognise(issued.serial, "k2", 1.0)


def test_nobody_fills_the_ledger() -> None:
    desk = Desk()
    last = [desk.enrol("k1") for _ in range(MAX_LIVE)][-1]
    for ask in (lambda: desk.enrol("k1"), lambda: desk.renew(last, "k2", 1.0)):
        with pytest.raises(EnrolmentRefusedError, match="a-0 has 50 certificates"):
            ask()
    desk.enrol("k2", now=LIFE)
    assert len(desk.ledger._issued) == 1


def test_a_pod_enrols_once_and_its_successor_makes_it_worthless() -> None:
    desk = Desk(pods=True)
    with pytest.raises(NotAnnouncedError):
        desk.enrol("k1", instance="p1")
    desk.ledger.announce({"a-0": "p1"})
    first = desk.enrol("k1", instance="p1")
    with pytest.raises(EnrolmentRefusedError, match="this pod of a-0 has enrolled already"):
        desk.enrol("k2", instance="p1")
    with pytest.raises(NotAnnouncedError):
        desk.enrol("k2", ordinal=1, instance="p1")
    with pytest.raises(NotAnnouncedError):
        desk.enrol("k2", instance="")
    desk.ledger.announce({"a-0": "p2"})
    second = desk.enrol("k2", instance="p2")
    with pytest.raises(RevokedError):
        desk.ledger.recognise(first.serial, "k1", 1.0)
    with pytest.raises(RevokedError):
        desk.renew(first, "k3", 1.0)
    assert desk.ledger.recognise(second.serial, "k2", 1.0).learner == "a-0"


def test_other_groups_need_no_announcement() -> None:
    assert Desk(pods=True).ledger.enrol("b", None, "", "k", 0.0) == 0


def test_revocation_is_for_good_and_opens_the_place_again() -> None:
    desk = Desk()
    lost = desk.enrol("k1")
    desk.keep(desk.ledger.amend({"a": 2}, (), ["a-0"], 10.0))
    assert desk.stored[lost.serial].revoked_at == 10.0
    for attempt in (lambda: desk.ledger.recognise(lost.serial, "k1", 11.0), lambda: desk.enrol("k2", now=11.0)):
        with pytest.raises(RevokedError):
            attempt()
    assert desk.ledger.enrol("a", None, "", "k2", 11.0) == 1, "a revoked place is not given out"
    desk.keep(desk.ledger.amend({"a": 2}, (), [], 12.0))
    desk.enrol("k2", now=13.0)
    with pytest.raises(RevokedError):
        desk.ledger.recognise(lost.serial, "k1", 14.0)


def test_a_learner_that_was_scaled_away_is_not_renewed() -> None:
    desk = Desk()
    second = desk.enrol("k1", ordinal=1)
    desk.ledger.amend({"a": 1}, (), (), 1.0)
    with pytest.raises(EnrolmentRefusedError, match="a-1 is not one of them"):
        desk.renew(second, "k2", 2.0)


def test_a_restarted_controller_decides_the_same() -> None:
    desk = Desk()
    kept, revoked = desk.enrol("k1"), desk.enrol("k2", ordinal=1)
    again = Ledger()
    again.amend({"a": 2}, (), ["a-1"], 5.0)
    assert again.load(desk.stored.values(), 5.0) == [replace(revoked, revoked_at=5.0)]
    assert again.recognise(kept.serial, "k1", 6.0) == kept
    with pytest.raises(EnrolmentRefusedError):
        again.enrol("a", 0, "", "k3", 6.0)


STEP = st.tuples(
    st.sampled_from(["enrol", "announce", "renew"]),
    st.integers(0, 1),
    st.sampled_from(["p1", "p2", "p3"]),
    st.sampled_from(["k1", "k2", "k3", "k4"]),
    st.floats(0.0, 60.0),
)


@given(st.lists(STEP, max_size=40), st.booleans())
def test_no_two_keys_hold_first_certificates_of_one_learner(steps: list[tuple], pods: bool) -> None:
    """First certificates that are live and not renewals: one key a learner, and in pods the one of an announced pod."""
    desk, now, announced = Desk(pods), 0.0, {"a-0": {""}, "a-1": {""}}
    for what, ordinal, pod, key, passed in steps:
        now += passed
        try:
            if what == "announce":
                desk.ledger.announce({f"a-{ordinal}": pod})
                announced[f"a-{ordinal}"].add(pod)
            elif what == "enrol":
                desk.enrol(key, ordinal, pod if pods else "", now)
            else:
                live = [entry for entry in desk.stored.values() if entry.live(now)]
                desk.renew(live[0], key, now) if live else None
        except (EnrolmentRefusedError, NotAnnouncedError, RevokedError, UnknownCertificateError):
            pass
        for learner in ("a-0", "a-1"):
            first = [e for e in desk.stored.values() if e.learner == learner and e.live(now) and not e.renews]
            assert len({entry.key for entry in first}) <= 1
            assert {entry.instance for entry in first} <= announced[learner]

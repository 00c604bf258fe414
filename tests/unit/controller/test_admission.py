"""Who comes in when: scripted cases on fake time, and random histories that must never deadlock."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metisfl_controller.aggregation.admission import (
    FULL_DISK_SECONDS,
    WATCH_SECONDS,
    Admission,
    Admit,
    MoveAside,
    Use,
)

NBYTES = 30_000_000
"""Slow, for this size, is less than a million bytes a second."""


@dataclass
class Staging:
    """An admission with its clock. Lines: "a in", "a aside" (let in there), "a out" (to be moved aside)."""

    slots: int = 2
    now: float = 0.0
    received: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.admission: Admission[str] = Admission(self.slots, NBYTES, lambda key: self.received.get(key, 0))

    def decide(self) -> list[str]:
        lines = []
        for decision in self.admission.decide(self.now):
            match decision:
                case Admit(key, aside):
                    lines.append(f"{key} {'aside' if aside else 'in'}")
                case MoveAside(key):
                    lines.append(f"{key} out")
        return lines

    def request(self, *keys: str) -> list[str]:
        lines = []
        for key in keys:
            self.admission.request(key, self.now)
            lines += self.decide()
        return lines

    def leave(self, key: str) -> list[str]:
        self.admission.leave(key)
        return self.decide()

    def turn(self, key: str, use: Use) -> list[str]:
        self.admission.turn(key, use, self.now)
        return self.decide()

    def moved(self, *keys: str) -> list[str]:
        for key in keys:
            self.admission.moved(key)
        return self.decide()

    def after(self, seconds: float, **arrived: int) -> list[str]:
        """Time passes, in which so many bytes arrive of these."""
        self.now += seconds
        for key, count in arrived.items():
            self.received[key] = self.received.get(key, 0) + count
        return self.decide()


def test_first_come_first_served() -> None:
    staging = Staging()
    assert staging.request("a", "b", "c", "d") == ["a in", "b in"]
    assert staging.leave("b") == ["c in"]
    assert staging.request("b") == []
    assert staging.leave("a") == ["d in"]
    assert staging.leave("c") == ["b in"]


def test_who_stops_waiting_leaves_the_queue() -> None:
    staging = Staging(slots=1)
    staging.request("a", "b", "c")
    assert staging.leave("b") == []
    assert staging.leave("b") == []
    assert staging.leave("a") == ["c in"]


def test_uploads_at_full_speed_are_left_alone() -> None:
    staging = Staging()
    staging.request("a", "b", "c")
    for _ in range(10):
        assert staging.after(WATCH_SECONDS, a=2_000_000, b=2_000_000) == []


def test_a_stalled_upload_makes_room_for_one_that_waits() -> None:
    staging = Staging()
    staging.request("a", "b", "c")
    assert staging.after(WATCH_SECONDS / 2, b=1_000_000) == []
    assert staging.after(WATCH_SECONDS / 2, b=1_000_000) == ["a out"]
    assert staging.after(0.1) == []
    assert staging.moved("a") == ["c in"]


def test_nobody_is_moved_while_nobody_waits() -> None:
    staging = Staging()
    staging.request("a", "b")
    assert staging.after(1000) == []
    assert staging.turn("a", Use.BROKEN) == []
    assert staging.turn("b", Use.PARKED) == []


def test_an_upload_is_judged_by_its_pace_while_somebody_waits() -> None:
    """Not by what it did, or did not do, before."""
    staging = Staging(slots=1)
    staging.request("a")
    staging.after(1000, a=10)
    assert staging.request("b") == []
    assert staging.after(WATCH_SECONDS, a=5_000_000) == []
    assert staging.after(WATCH_SECONDS, a=10) == ["a out"]


def test_broken_and_parked_uploads_are_moved_at_once_and_no_more_than_needed() -> None:
    staging = Staging(slots=3)
    staging.request("a", "b", "c")
    staging.turn("a", Use.PARKED)
    staging.turn("b", Use.BROKEN)
    assert staging.request("d") == ["a out"]
    assert staging.request("e") == ["b out"]
    assert staging.request("f") == []
    assert staging.moved("b", "a") == ["d in", "e in"]


def test_what_is_worked_on_stays_where_it_is() -> None:
    staging = Staging(slots=1)
    staging.request("a", "b")
    staging.turn("a", Use.WORKED_ON)
    assert staging.after(100) == []
    assert staging.leave("a") == ["b in"]


def test_behind_slow_uploads_all_who_wait_come_in() -> None:
    """Eight that stall do not delay twenty others: two watches at most, however many there are."""
    staging = Staging(slots=4)
    stalled = [f"stalled{number}" for number in range(8)]
    others = [f"other{number}" for number in range(20)]
    assert staging.request(*stalled, *others) == [f"{key} in" for key in stalled[:4]]
    lines = staging.after(WATCH_SECONDS)
    assert lines == [*(f"{key} out" for key in stalled[:4]), *(f"{key} aside" for key in others)]
    assert staging.moved(*stalled[:4]) == [f"{key} in" for key in stalled[4:]]


def test_large_models_may_take_their_time() -> None:
    staging = Staging(slots=1)
    staging.admission = Admission(1, 4_000_000_000, lambda key: staging.received.get(key, 0))
    staging.request("a", "b")
    assert staging.after(WATCH_SECONDS, a=5 << 20) == []
    assert staging.after(WATCH_SECONDS, a=3 << 20) == ["a out"]


def test_leaving_while_being_moved_frees_the_slot_once_the_move_has_ended() -> None:
    staging = Staging(slots=1)
    staging.request("a", "b")
    staging.turn("a", Use.BROKEN)
    assert staging.leave("a") == []
    assert staging.admission.in_slots == 1
    assert staging.moved("a") == ["b in"]
    assert staging.admission.aside == 0


def test_a_full_disk_is_tried_again_later() -> None:
    staging = Staging(slots=1)
    staging.request("a", "b")
    assert staging.turn("a", Use.BROKEN) == ["a out"]
    staging.admission.not_moved("a", staging.now)
    assert staging.after(FULL_DISK_SECONDS / 2) == []
    assert staging.after(FULL_DISK_SECONDS / 2) == ["a out"]


def test_who_was_kept_out_is_the_next() -> None:
    staging = Staging(slots=1)
    staging.request("a", "b")
    staging.admission.not_admitted("a", staging.now)
    assert staging.decide() == []
    assert staging.after(FULL_DISK_SECONDS) == ["a in"]
    assert staging.leave("a") == ["b in"]


def test_who_was_kept_out_and_leaves_is_forgotten() -> None:
    staging = Staging(slots=1)
    staging.request("a", "b")
    staging.admission.not_admitted("a", staging.now)
    staging.leave("a")
    assert staging.after(FULL_DISK_SECONDS) == ["b in"]


# ---- random histories


@dataclass
class Learner:
    """One upload's life, as the test drew it."""

    pace: int
    """Bytes a second; 0 never delivers anything and hangs up in the end."""
    starts_at: int
    breaks: bool
    state: str = "outside"
    received: int = 0


LEARNERS = st.lists(
    st.builds(
        Learner,
        pace=st.sampled_from([0, 100_000, 900_000, 5_000_000, NBYTES, 10 * NBYTES]),
        starts_at=st.integers(0, 20),
        breaks=st.booleans(),
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("in_order", [False, True])
@settings(deadline=None)
@given(learners=LEARNERS, slots=st.integers(1, 5), disk_fails=st.sets(st.integers(0, 40), max_size=10))
def test_whatever_uploads_do_all_come_in_and_all_slots_are_freed(
    in_order: bool, learners: list[Learner], slots: int, disk_fails: set[int]
) -> None:
    """`in_order`: as in deterministic mode, a complete upload is folded only after all that come before it."""
    admission: Admission[int] = Admission(slots, NBYTES, lambda number: learners[number].received)
    moving: list[int] = []
    files = 0

    def act(now: float) -> None:
        nonlocal files
        for decision in admission.decide(now):
            files += isinstance(decision, MoveAside) or decision.aside
            match decision:
                case MoveAside(number) if files in disk_fails:
                    admission.not_moved(number, now)
                case MoveAside(number):
                    moving.append(number)
                case Admit(number, True) if files in disk_fails:
                    admission.not_admitted(number, now)
                case Admit(number, _):
                    assert learners[number].state == "waiting"
                    learners[number].state = "filling"
        assert admission.in_slots <= slots

    def fold(number: int) -> None:
        admission.turn(number, Use.WORKED_ON, now)
        admission.leave(number)
        learners[number].state = "done"

    now = 0.0
    for step in range(20_000):
        now = step / 4
        for number in moving:
            admission.moved(number)
        moving.clear()
        for number, learner in enumerate(learners):
            if learner.state == "outside" and now >= learner.starts_at:
                learner.state = "waiting"
                admission.request(number, now)
            if learner.state == "filling":
                learner.received = min(NBYTES, learner.received + learner.pace // 4)
                if learner.breaks and learner.received > NBYTES // 2:
                    learner.breaks, learner.state = False, "broken"
                    admission.turn(number, Use.BROKEN, now)
                elif learner.received == NBYTES:
                    learner.state = "complete"
                    admission.turn(number, Use.PARKED if in_order else Use.WORKED_ON, now)
                elif learner.pace == 0 and now > 200:
                    admission.leave(number)
                    learner.state = "done"
            elif learner.state == "broken":
                admission.turn(number, Use.FILLING, now)
                learner.state = "filling"
            act(now)
        for number, learner in enumerate(learners):
            before = [other.state for other in learners[:number]]
            if learner.state == "complete" and not (in_order and any(state != "done" for state in before)):
                fold(number)
                act(now)
        if all(learner.state == "done" for learner in learners) and not moving:
            break
    assert [learner.state for learner in learners] == ["done"] * len(learners)
    assert (admission.in_slots, admission.aside, admission.waiting) == (0, 0, 0)

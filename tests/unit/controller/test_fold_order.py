"""Deterministic mode: the order in which updates are added does not depend on when they come."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from metisfl_controller.conductor.fold_order import FoldOrder
from metisfl_controller.rounds.participation import Participant, Standing
from metisfl_controller.rounds.tasks import Kind, TaskId


def task(learner: str) -> TaskId:
    return TaskId("uid", 1, Kind.TRAIN, 0, learner, 1)


class Round:
    """Participants by number, and what has been added so far."""

    def __init__(self, *numbers: int) -> None:
        self.participants = {f"a-{number}": Participant(task(f"a-{number}")) for number in numbers}
        self.order = FoldOrder(lambda: self.participants)
        self.added: list[str] = []

    def arrives(self, number: int) -> None:
        self.order.arrived(task(f"a-{number}"), float(number))
        self.add()

    def add(self, *, closing: bool = False) -> None:
        while found := self.order.next(closing=closing):
            self.added.append(found[0].learner)
            assert found[1] == float(found[0].learner[2:])

    def excludes(self, number: int) -> None:
        self.participants[f"a-{number}"].standing = Standing.EXCLUDED


def test_updates_wait_for_those_before_them() -> None:
    one = Round(2, 10, 1)
    one.arrives(10)
    one.arrives(2)
    assert one.added == []
    one.arrives(1)
    assert one.added == ["a-1", "a-2", "a-10"]


def test_nobody_waits_for_the_excluded_but_for_the_lost() -> None:
    one = Round(1, 2, 3)
    one.participants["a-1"].standing = Standing.LOST
    one.arrives(2)
    assert one.added == []
    one.excludes(1)
    one.arrives(3)
    assert one.added == ["a-2", "a-3"]


def test_when_the_round_closes_the_rest_is_added_in_order() -> None:
    one = Round(1, 2, 3, 4)
    for number in (4, 2, 3):
        one.arrives(number)
    assert one.added == []
    one.add(closing=True)
    assert one.added == ["a-2", "a-3", "a-4"]


def test_a_new_participant_is_taken_in() -> None:
    one = Round(1, 3)
    one.arrives(1)
    one.participants["a-2"] = Participant(task("a-2"))
    one.arrives(3)
    assert one.added == ["a-1"]
    one.arrives(2)
    assert one.added == ["a-1", "a-2", "a-3"]


def test_what_an_abandoned_round_has_left_is_given_back() -> None:
    one = Round(1, 2)
    one.arrives(2)
    assert one.order.reset() == [task("a-2")]
    assert one.order.reset() == []
    one.arrives(1)
    assert one.added == ["a-1"]


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)))
def test_only_who_contributes_decides(arrivals: list[int], lost: set[int], excluded: set[int]) -> None:
    """Whatever the arrivals, contributors are added by number, and as early as that allows."""
    one = Round(*range(12))
    contributors = [number for number in arrivals if number not in lost | excluded]
    for number in excluded:
        one.excludes(number)
    for number in contributors:
        one.arrives(number)
        arrived = set(contributors[: contributors.index(number) + 1]) | excluded
        ready = next(n for n in count() if n not in arrived)
        assert one.added == [f"a-{n}" for n in range(ready) if n not in excluded]
    one.add(closing=True)
    assert one.added == [f"a-{number}" for number in sorted(contributors)]

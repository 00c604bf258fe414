"""When uploads are given to the rule; in deterministic mode their order does not depend on when they come."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from metisfl_controller.conductor.fold_order import AllAtTheEnd, AsTheyCome, ByLearner
from metisfl_controller.rounds.messages import Fold
from metisfl_controller.rounds.participation import Participant, Standing
from metisfl_controller.rounds.tasks import Kind, TaskId


def task(learner: str) -> TaskId:
    return TaskId("uid", 1, Kind.TRAIN, 0, learner, 1)


def update(number: int) -> Fold:
    return Fold(task(f"a-{number}"), float(number), 3)


class Round:
    """Participants by number, and what has been added so far."""

    def __init__(self, *numbers: int) -> None:
        self.participants = {f"a-{number}": Participant(task(f"a-{number}")) for number in numbers}
        self.order = ByLearner(lambda: self.participants)
        self.added: list[str] = []

    def arrives(self, number: int) -> None:
        self.order.arrived(update(number))
        while found := self.order.next():
            assert found == update(int(found.task.learner[2:]))
            self.added.append(found.task.learner)

    def closes(self) -> None:
        self.added += [fold.task.learner for fold in self.order.rest()]

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
    one.closes()
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
    assert one.order.reset() == [update(2)]
    assert one.order.reset() == []
    one.arrives(1)
    assert one.added == ["a-1"]


@given(st.permutations(range(12)))
def test_rules_that_gather_get_all_at_the_end_in_the_learners_order(arrivals: list[int]) -> None:
    order = AllAtTheEnd()
    for number in arrivals:
        order.arrived(update(number))
        assert order.next() is None
        assert order.holds(update(number))
    assert order.rest() == [update(number) for number in range(12)]
    assert order.rest() == []


def test_otherwise_updates_are_added_as_they_come_and_a_learner_may_have_several() -> None:
    order = AsTheyCome()
    again = Fold(TaskId("uid", 1, Kind.TRAIN, 1, "a-2", 1), 9.0, 3)
    for fold in (update(2), update(1), again):
        order.arrived(fold)
    assert [order.next() for _ in range(4)] == [update(2), update(1), again, None]


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
    one.closes()
    assert one.added == [f"a-{number}" for number in sorted(contributors)]

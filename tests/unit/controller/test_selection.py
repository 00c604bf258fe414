"""Selection policies: sizes, fairness, chance that needs no memory, and power-of-choice against its definition."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.spec.selection import SelectionSpec
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Report
from metisfl_controller.rounds.names import by_number
from metisfl_controller.rounds.selection.all import All
from metisfl_controller.rounds.selection.choice import selection_of
from metisfl_controller.rounds.selection.per_group import PerGroup
from metisfl_controller.rounds.selection.policy import Candidate, Selection
from metisfl_controller.rounds.selection.power_of_choice import PowerOfChoice
from metisfl_controller.rounds.selection.random import Random
from metisfl_controller.rounds.selection.round_robin import RoundRobin
from metisfl_controller.rounds.selection.selector import History, Selector
from metisfl_controller.rounds.tasks import Kind, TaskId

policies = st.one_of(
    st.just(All()),
    st.builds(Random, st.fractions(Fraction(1, 100), 1), st.integers(0, 9)),
    st.builds(RoundRobin, st.integers(1, 12)),
    st.builds(PerGroup, st.integers(1, 4)),
    st.builds(PowerOfChoice, st.integers(1, 12), st.integers(1, 12), st.just("loss"), st.integers(0, 9)),
)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    places = draw(st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=20))
    return [
        Candidate(
            learner,
            examples=draw(st.integers(0, 1000)),
            last_round=draw(st.integers(0, 5)),
            rounds=draw(st.integers(0, 5)),
            metrics=draw(st.dictionaries(st.just("loss"), st.floats(0, 10))),
        )
        for learner in by_number(f"{group}-{ordinal}" for group, ordinal in places)
    ]


def named(*learners: str) -> list[Candidate]:
    return [Candidate(learner) for learner in learners]


@given(policies, candidates(), st.integers(1, 100), st.integers(0, 3))
def test_whoever_is_selected_is_ready_and_selected_once_and_again(
    policy: Selection, ready: list[Candidate], number: int, extra: int
) -> None:
    """And more are only ever added to those that are selected without extra."""
    chosen = policy.select(ready, number, extra)
    assert len(set(chosen)) == len(chosen) >= 1
    assert set(chosen) <= {candidate.learner for candidate in ready}
    assert policy.select(ready, number, extra) == chosen
    fewer = policy.select(ready, number)
    assert set(fewer) <= set(chosen)
    assert len(chosen) == min(len(ready), len(fewer) + (0 if isinstance(policy, All) else extra))


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        (All(), 10),
        (Random(Fraction("0.1"), 0), 1),
        (Random(Fraction("0.11"), 0), 2),
        (Random(Fraction("0.7"), 0), 7),  # 0.7 · 10 is 7.000000000000001 in floating point
        (Random(Fraction("1"), 0), 10),
        (RoundRobin(3), 3),
        (RoundRobin(11), 10),
        (PowerOfChoice(6, 3, "loss", 0), 3),
        (PerGroup(2), 4),
        (PerGroup(6), 9),
    ],
)
def test_sizes(policy: Selection, size: int) -> None:
    ready = named(*(f"a-{i}" for i in range(7)), *(f"b-{i}" for i in range(3)))
    assert len(policy.select(ready, 1)) == size


# ---- Random


def test_another_seed_or_round_draws_other_learners() -> None:
    ready = named(*(f"a-{i}" for i in range(40)))
    draws = {tuple(Random(Fraction(1, 4), seed).select(ready, number)) for seed in range(5) for number in range(1, 6)}
    assert len(draws) == 25


def test_every_set_is_as_likely_as_any_other() -> None:
    """Chi-squared over the 10 pairs of five learners: 9 degrees of freedom exceed 33.7 once in 10,000 times."""
    ready, rounds = named(*"abcde"), 5000
    drawn = Counter(frozenset(Random(Fraction(2, 5), 3).select(ready, number)) for number in range(rounds))
    expected = rounds / 10
    assert len(drawn) == 10
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 33.7


@given(candidates(), st.integers(1, 50), st.data())
def test_one_that_is_missing_changes_one_place_at_most(
    ready: list[Candidate], number: int, data: st.DataObject
) -> None:
    """So that a controller that restarts before all have returned still asks most of those that hold results."""
    policy = Random(Fraction(1, 2), 1)
    gone = data.draw(st.sampled_from(ready))
    before, after = policy.select(ready, number), policy.select([c for c in ready if c is not gone], number)
    assert len(set(before) - {gone.learner} - set(after)) <= 1
    assert len(set(after) - set(before)) <= 1


# ---- RoundRobin and PerGroup


def rounds_of(selector: Selector, ready: list[str], numbers: range, extra: int = 0) -> list[list[str]]:
    chosen = []
    for number in numbers:
        chosen.append(selector.choose(ready, number, extra))
        for learner in chosen[-1]:
            selector.took_part(learner, number)
    return chosen


@given(st.integers(1, 12), st.integers(1, 12))
def test_round_robin_gives_everybody_a_turn(learners: int, each: int) -> None:
    ready = [f"a-{i}" for i in range(learners)]
    turns = -(-learners // each)
    chosen = rounds_of(Selector(RoundRobin(each)), ready, range(1, 3 * turns + 1))
    for start in range(2 * turns + 1):
        assert set(itertools.chain(*chosen[start : start + turns])) == set(ready)
    counts = Counter(itertools.chain(*chosen))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_round_robin_starts_in_natural_order() -> None:
    assert rounds_of(Selector(RoundRobin(2)), ["a-10", "a-2", "a-1"], range(1, 4)) == [
        ["a-1", "a-2"],
        ["a-1", "a-10"],
        ["a-2", "a-10"],
    ]


def test_who_was_away_is_first_when_it_returns() -> None:
    selector = Selector(RoundRobin(1))
    rounds_of(selector, ["a-1", "a-2"], range(1, 5))
    assert selector.choose(["a-0", "a-1", "a-2"], 5) == ["a-0"]


@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 12))
def test_a_restart_between_two_rounds_changes_nothing(each: int, learners: int, at: int) -> None:
    ready = [f"a-{i}" for i in range(learners)]
    undisturbed = rounds_of(Selector(RoundRobin(each)), ready, range(1, 13))
    before = rounds_of(Selector(RoundRobin(each)), ready, range(1, at + 1))
    parts = Counter(itertools.chain(*before))
    history = {name: History(number, parts[name]) for number, names in enumerate(before, 1) for name in names}
    assert before + rounds_of(Selector(RoundRobin(each), history), ready, range(at + 1, 13)) == undisturbed


def test_per_group_takes_turns_within_each_group() -> None:
    ready = ["a-0", "a-1", "a-2", "b-0", "long-name-0", "long-name-1"]
    assert rounds_of(Selector(PerGroup(1)), ready, range(1, 4)) == [
        ["a-0", "b-0", "long-name-0"],
        ["a-1", "b-0", "long-name-1"],
        ["a-2", "b-0", "long-name-0"],
    ]
    assert Selector(PerGroup(1)).choose(ready, 1, extra=2) == ["a-0", "a-1", "a-2", "b-0", "long-name-0"]


# ---- PowerOfChoice


def losses(**values: float) -> list[Candidate]:
    return [Candidate(name.replace("_", "-"), 10, 1, 1, {"loss": value}) for name, value in values.items()]


def test_the_worst_of_all_when_all_are_candidates() -> None:
    ready = losses(a_0=0.5, a_1=2.0, a_2=1.0, a_3=3.0)
    for number in range(1, 20):
        assert PowerOfChoice(4, 2, "loss", 0).select(ready, number) == ["a-3", "a-1"]


def test_who_has_no_known_loss_comes_first() -> None:
    ready = [*losses(a_0=9.0, a_1=8.0), Candidate("a-2", 10), Candidate("a-3", 10, 1, 1, {"accuracy": 0.5})]
    assert set(PowerOfChoice(4, 2, "loss", 0).select(ready, 1)) == {"a-2", "a-3"}
    assert set(PowerOfChoice(4, 3, "loss", 0).select(ready, 1)) == {"a-0", "a-2", "a-3"}


@given(candidates(), st.integers(1, 10), st.integers(1, 10), st.integers(1, 50))
def test_nobody_drawn_and_left_out_is_worse_than_who_is_taken(
    ready: list[Candidate], candidates_: int, learners: int, number: int
) -> None:
    """The m worst of the d that are drawn: what is drawn is what is taken when as many are wanted as drawn."""
    wanted = min(learners, candidates_)
    drawn = set(PowerOfChoice(candidates_, candidates_, "loss", 5).select(ready, number))
    taken = set(PowerOfChoice(candidates_, wanted, "loss", 5).select(ready, number))
    known = {c.learner: c.metrics.get("loss", np.inf) for c in ready}
    assert taken <= drawn
    assert len(taken) == min(wanted, len(ready))
    assert min(known[name] for name in taken) >= max((known[name] for name in drawn - taken), default=-np.inf)


def drawn_in_turn(shares: np.ndarray, count: int) -> dict[frozenset[int], float]:
    """The probability of each set when learners are drawn one after the other, by data size, without replacement."""
    chances: dict[frozenset[int], float] = Counter()
    for order in itertools.permutations(range(len(shares)), count):
        chance, left = 1.0, 1.0
        for k in order:
            chance *= shares[k] / left
            left -= shares[k]
        chances[frozenset(order)] += chance
    return chances


def test_candidates_are_drawn_by_the_size_of_their_data_without_replacement() -> None:
    """Chi-squared over the 6 pairs of four learners: 5 degrees of freedom exceed 25.7 once in 10,000 times."""
    examples, rounds = np.array([10, 20, 30, 140]), 5000
    ready = [Candidate(str(k), int(n)) for k, n in enumerate(examples)]
    policy = PowerOfChoice(2, 2, "loss", 11)
    drawn = Counter(frozenset(int(name) for name in policy.select(ready, number)) for number in range(rounds))
    expected = drawn_in_turn(examples / examples.sum(), 2)
    assert sum((drawn[pair] - rounds * p) ** 2 / (rounds * p) for pair, p in expected.items()) < 25.7


# ---- what the selector knows, and the spec


def test_the_last_value_of_each_metric_counts() -> None:
    selector = Selector(PowerOfChoice(3, 1, "loss", 0), {"a-0": History(4, 1, {"loss": 5.0})})
    task = TaskId("uid", 1, Kind.TRAIN, 4, "a-1", 1)
    selector.hear(m.UpdateVerified(task, m.Work(10, 1, 0.5, {"loss": 6.0})))
    selector.hear(m.Evaluated("a-2", 4, Report(10, {"loss": 7.0})))
    assert selector.choose(["a-0", "a-1", "a-2"], 5) == ["a-2"]
    selector.hear(m.Evaluated("a-2", 5, Report(10, {"loss": 1.0})))
    selector.hear(m.Evaluated("a-1", 5, Report(10, {"accuracy": 1.0})))
    assert selector.choose(["a-0", "a-1", "a-2"], 6) == ["a-1"]


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ({}, All()),
        ({"type": "Random", "random": {"fraction": "0.3", "seed": 7}}, Random(Fraction(3, 10), 7)),
        ({"type": "RoundRobin", "roundRobin": {"learners": 3}}, RoundRobin(3)),
        (
            {"type": "PowerOfChoice", "powerOfChoice": {"candidates": 6, "learners": 3}},
            PowerOfChoice(6, 3, "loss", 0),
        ),
        ({"type": "PerGroup", "perGroup": {"learners": 2}}, PerGroup(2)),
    ],
)
def test_each_spec_has_its_policy(spec: dict[str, object], policy: Selection) -> None:
    found = selection_of(SelectionSpec.model_validate(spec))
    assert found == policy

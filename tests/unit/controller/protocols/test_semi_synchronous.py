"""The SemiSynchronous protocol in every scene; see `plays`. Each learner has 100 examples, so 10 batches an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.protocols.parameters import Pacing
from metisfl_controller.rounds.protocols.semi_synchronous import SemiSynchronous
from metisfl_controller.rounds.work import Work
from tests.unit.controller.protocols.plays import SCENES, Play

PLAN = {"pacing": Pacing(lambda_=2.0, recompute_every=1, batch_size=10), "quorum_percent": 60}

FIRST_ROUND = """
at first                                | begin 1, a-0 trains and evaluates 0, a-1 trains and evaluates 0,
                                        | b-0 trains and evaluates 0
a-0 delivers 1 batches in 0.1 seconds   | fold a-0 x10
a-1 delivers 1 batches in 0.2 seconds   | fold a-1 x10
b-0 delivers 1 batches in 0.4 seconds   | fold b-0 x10, commit 1 of a-0 a-1 b-0
"""
"""Batches take 0.1, 0.2 and 0.4 s, so two epochs of the slowest, of one batch each, 0.8 s."""

PLAYS: dict[str, str] = {
    "normal": """
        1 is committed            | begin 2, a-0 trains 1 for 8 batches, a-1 trains 1 for 4 batches,
                                  | b-0 trains 1 for 2 batches
        """,
    "late": """
        1 is committed            | begin 2, a-0 trains 1 for 8 batches, a-1 trains 1 for 4 batches,
                                  | b-0 trains 1 for 2 batches
        a-0 a-1 deliver           | fold a-0 x10, fold a-1 x10
        100 seconds pass          | commit 2 of a-0 a-1, lost b-0, b-0 discards 1
        2 is committed            | begin 3, a-0 trains 2 for 2 batches, a-1 trains 2 for 2 batches,
                                  | b-0 trains 2 for 5 batches
        """,
    "dead": """
        b-0 is lost               |
        1 is committed            | begin 2, a-0 trains 1 for 4 batches, a-1 trains 1 for 2 batches
        """,
    "leaving": """
        1 is committed            | begin 2, a-0 trains 1 for 8 batches, a-1 trains 1 for 4 batches,
                                  | b-0 trains 1 for 2 batches
        b-0 is gone               |
        a-0 delivers 8 batches in 0.8 seconds | fold a-0 x10
        a-1 delivers 4 batches in 0.8 seconds | fold a-1 x10, commit 2 of a-0 a-1, lost b-0
        2 is committed            | begin 3, a-0 trains 2 for 4 batches, a-1 trains 2 for 2 batches
        """,
    "joining": """
        c-0 appears               | c-0 waits
        1 is committed            | begin 2, a-0 trains 1 for 8 batches, a-1 trains 1 for 4 batches,
                                  | b-0 trains 1 for 2 batches, c-0 trains 1
        """,
    "all dead": """
        1 is committed            | begin 2, a-0 trains 1 for 8 batches, a-1 trains 1 for 4 batches,
                                  | b-0 trains 1 for 2 batches
        a-0 a-1 b-0 are lost      |
        100 seconds pass          |
        100 seconds pass          |
        100 seconds pass          | Failed: QuorumNotReached at 1
        """,
    "controller restart": """
        1 is committed            | begin 2, a-0 trains 1 for 8 batches, a-1 trains 1 for 4 batches,
                                  | b-0 trains 1 for 2 batches
        the controller restarts   |
        a-0 appears               | a-0 waits
        a-1 appears               | a-1 waits
        b-0 returns at work       | b-0 waits, begin 2, a-0 trains 1, a-1 trains 1
        """,
}


@pytest.mark.parametrize("scene", PLAYS)
def test_scene(script: Callable[..., Any], scene: str) -> None:
    Play(script, **PLAN).act(FIRST_ROUND + PLAYS[scene])


def test_every_scene_is_played() -> None:
    assert PLAYS.keys() >= SCENES


# ---- the formula, against the paper's


def protocol(lambda_: float = 1.0, recompute_every: int = 1, deadline: float = 1e9) -> SemiSynchronous:
    pacing = Pacing(lambda_, recompute_every, batch_size=10)
    return SemiSynchronous(Plan(3, 1, 100, deadline, 10, pacing=pacing))


def run_round(
    p: SemiSynchronous, version: int, batch_seconds: Mapping[str, float], examples: int = 100
) -> dict[str, Any]:
    """Open the round after `version`, let everybody train at this speed; the batches each was given."""
    p.open(version, batch_seconds.keys(), now=0.0)
    given_ = {learner: p.steps(learner) for learner in batch_seconds}
    for learner, seconds in batch_seconds.items():
        batches = given_[learner] or examples // 10
        p.delivered(learner, Work(examples, batches, batches * seconds))
    return given_


@given(
    st.dictionaries(st.sampled_from("abcde"), st.floats(1e-3, 1e3), min_size=1),
    st.sampled_from([0.25, 0.5, 1.0, 2.0, 7.5]),
    st.integers(1, 1000),
)
def test_batches_are_those_of_the_paper(batch_seconds: dict[str, float], lambda_: float, examples: int) -> None:
    p = protocol(lambda_)
    p.open(0, batch_seconds.keys(), now=0.0)
    for learner, seconds in batch_seconds.items():
        p.delivered(learner, Work(examples, batches=7, seconds=7 * seconds))
    p.open(1, batch_seconds.keys(), now=0.0)
    t_max = lambda_ * max(-(-examples // 10) * seconds for seconds in batch_seconds.values())
    for learner, seconds in batch_seconds.items():
        steps = p.steps(learner)
        assert steps is not None
        assert steps >= 1
        assert steps == 1 or steps * seconds <= t_max * (1 + 1e-6)
        assert (steps + 1) * seconds > t_max * (1 - 1e-6), "one more batch would have fitted"


def test_metisfl_defect_semi_sync_uses_the_first_rounds_timings_for_ever() -> None:
    """A learner that becomes ten times as slow is given a tenth of the batches as soon as that is known."""
    p = protocol()
    run_round(p, 0, {"a": 1.0, "b": 1.0})
    assert run_round(p, 1, {"a": 1.0, "b": 10.0}) == {"a": 10, "b": 10}
    assert run_round(p, 2, {"a": 1.0, "b": 10.0}) == {"a": 100, "b": 10}
    assert run_round(p, 3, {"a": 1.0, "b": 1.0}) == {"a": 100, "b": 10}
    assert run_round(p, 4, {"a": 1.0, "b": 1.0}) == {"a": 10, "b": 10}


def test_batches_are_recomputed_as_often_as_asked() -> None:
    p = protocol(recompute_every=3)
    run_round(p, 0, {"a": 1.0, "b": 1.0})
    slow = {"a": 1.0, "b": 10.0}
    assert [run_round(p, version, slow)["a"] for version in range(1, 8)] == [10, 10, 10, 100, 100, 100, 100]


def test_a_newcomer_trains_one_epoch_and_is_then_paced_without_waiting_for_the_others() -> None:
    p = protocol(recompute_every=100)
    run_round(p, 0, {"a": 1.0})
    assert run_round(p, 1, {"a": 1.0, "b": 2.0}) == {"a": 10, "b": None}
    assert run_round(p, 2, {"a": 1.0, "b": 2.0}) == {"a": 10, "b": 5}


def test_a_learner_that_is_gone_does_not_set_the_pace() -> None:
    p = protocol()
    run_round(p, 0, {"a": 1.0, "slow": 50.0})
    assert run_round(p, 1, {"a": 1.0}) == {"a": 10}


def test_a_learner_that_says_it_took_no_time_gets_a_bounded_number_of_batches() -> None:
    p = protocol()
    run_round(p, 0, {"a": 1000.0, "b": 0.0})
    assert run_round(p, 1, {"a": 1000.0, "b": 0.0}) == {"a": 10, "b": 1_000_000_000}


def test_a_learner_that_says_it_took_for_ever_makes_nobody_train_beyond_the_deadline() -> None:
    p = protocol(deadline=60.0)
    run_round(p, 0, {"a": 1.0, "b": 1e6})
    assert run_round(p, 1, {"a": 1.0, "b": 1e6}) == {"a": 60, "b": 1}

"""The Asynchronous protocol in every scene, one update a version and buffered; see `plays`. mixing is 0.6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.spec.protocol import StalenessSpec, StalenessType
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.plan import Target
from metisfl_controller.rounds.protocols.parameters import Buffering
from metisfl_controller.rounds.protocols.staleness import hinge, polynomial, weight_of
from tests.unit.controller.protocols.plays import SCENES, Play


def buffering(size: int = 1, max_staleness: int = 20) -> dict[str, Any]:
    """1, 1/2, 1/3 … of an update counts."""
    return {"buffering": Buffering(size, 0.6, polynomial(1.0), max_staleness)}


EACH: dict[str, str] = {
    "normal": """
        at first                  | begin 1, a-0 trains and evaluates 0, a-1 trains and evaluates 0,
                                  | b-0 trains and evaluates 0
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        a-0 delivers              | fold a-0 x10 · 0.6, commit 2 of a-0
        2 is committed            | begin 3, a-0 trains 2
        """,
    "late": """
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        a-0 delivers              | fold a-0 x10 · 0.6, commit 2 of a-0
        2 is committed            | begin 3, a-0 trains 2
        b-0 delivers              | fold b-0 x10 · 0.2, commit 3 of b-0
        3 is committed            | begin 4, b-0 trains 3
        """,
    "what comes while a version is written is for the next": """
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        a-1 b-0 deliver           |
        1 is committed            | begin 2, fold a-1 x10 · 0.3, commit 2 of a-1
        2 is committed            | begin 3, fold b-0 x10 · 0.2, commit 3 of b-0
        3 is committed            | begin 4, a-0 trains 3, a-1 trains 3, b-0 trains 3
        """,
    "dead": """
        b-0 is lost               |
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        b-0 appears               | b-0 evaluates 0
        b-0 finds 0 is 0.5        | b-0 trains 1
        """,
    "leaving": """
        a-0 is gone               |
        b-0 is gone               |
        a-1 delivers              | fold a-1 x10 · 0.6, commit 1 of a-1
        1 is committed            | begin 2, a-1 trains 1
        """,
    "an upload after the loss still counts": """
        a-0 is lost               |
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2
        """,
    "joining": """
        c-0 appears               | c-0 trains 0
        c-0 delivers              | fold c-0 x10 · 0.6, commit 1 of c-0
        d-0 appears               | d-0 waits
        1 is committed            | begin 2, c-0 trains 1, d-0 trains 1
        """,
    "all dead": """
        a-0 a-1 b-0 are lost      |
        100 seconds pass          |
        100 seconds pass          |
        100 seconds pass          | Failed: NoUpdates at 0
        """,
    "all hang": """
        100 seconds pass          |
        100 seconds pass          |
        99 seconds pass           |
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        100 seconds pass          |
        100 seconds pass          |
        100 seconds pass          | a-0 discards 1, a-1 discards 0, b-0 discards 0, Failed: NoUpdates at 1
        """,
    "controller restart": """
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        a-1 delivers              | fold a-1 x10 · 0.3, commit 2 of a-1
        the controller restarts   |
        a-0 returns at work       |
        a-1 returns holding its result | a-1 resends 0
        b-0 appears               | b-0 waits, begin 2, b-0 trains 1
        a-1 delivers              | fold a-1 x10 · 0.3, commit 2 of a-1
        2 is committed            | begin 3, a-1 trains 2
        a-0 delivers              | fold a-0 x10 · 0.3, commit 3 of a-0
        """,
    "what is in a version is not counted again after a restart": """
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        a-0 delivers              | fold a-0 x10 · 0.6, commit 2 of a-0
        2 is committed            | begin 3, a-0 trains 2
        the controller restarts   |
        a-1 b-0 appear            | a-1 waits, b-0 waits
        15 seconds pass           | begin 3, a-1 trains 2, b-0 trains 2
        a-0 returns at work       |
        """,
    "a learner that fails is asked again when something has changed": """
        a-0 fails                 |
        a-1 delivers              | fold a-1 x10 · 0.6, commit 1 of a-1
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1
        a-0 is refused            |
        100 seconds pass          | a-0 trains 1
        """,
}

BUFFERED: dict[str, str] = {
    "normal": """
        a-0 delivers              | fold a-0 x10 · 0.6, a-0 trains 0
        a-1 delivers              | fold a-1 x10 · 0.6, commit 1 of a-0 a-1
        1 is committed            | begin 2, a-1 trains 1
        """,
    "a fast learner has several parts in a version": """
        a-0 delivers              | fold a-0 x10 · 0.6, a-0 trains 0
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        """,
    "late": """
        a-0 delivers              | fold a-0 x10 · 0.6, a-0 trains 0
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        b-0 delivers              | fold b-0 x10 · 0.3, b-0 trains 1
        a-1 delivers              | fold a-1 x10 · 0.3, commit 2 of a-1 b-0
        """,
    "dead": """
        a-0 delivers              | fold a-0 x10 · 0.6, a-0 trains 0
        a-0 is lost               |
        a-1 delivers              | fold a-1 x10 · 0.6, commit 1 of a-0 a-1
        """,
    "leaving": """
        a-0 is gone               |
        a-1 delivers              | fold a-1 x10 · 0.6, a-1 trains 0
        b-0 delivers              | fold b-0 x10 · 0.6, commit 1 of a-1 b-0
        1 is committed            | begin 2, b-0 trains 1
        """,
    "joining": """
        c-0 appears               | c-0 trains 0
        c-0 a-0 deliver           | fold c-0 x10 · 0.6, c-0 trains 0, fold a-0 x10 · 0.6, commit 1 of a-0 c-0
        """,
    "all dead": """
        a-0 delivers              | fold a-0 x10 · 0.6, a-0 trains 0
        a-0 a-1 b-0 are lost      |
        100 seconds pass          |
        100 seconds pass          |
        100 seconds pass          | Failed: NoUpdates at 0
        """,
    "controller restart": """
        a-0 delivers              | fold a-0 x10 · 0.6, a-0 trains 0
        the controller restarts   |
        a-0 returns at work       |
        a-1 returns at work       |
        b-0 returns at work       | begin 1
        a-0 delivers              | fold a-0 x10 · 0.6, a-0 trains 0
        a-1 delivers              | fold a-1 x10 · 0.6, commit 1 of a-0 a-1
        """,
}


@pytest.mark.parametrize("scene", EACH)
def test_scene(script: Callable[..., Any], scene: str) -> None:
    Play(script, **buffering()).act(EACH[scene])


@pytest.mark.parametrize("scene", BUFFERED)
def test_buffered_scene(script: Callable[..., Any], scene: str) -> None:
    Play(script, **buffering(size=2)).act(BUFFERED[scene])


def test_every_scene_is_played() -> None:
    assert EACH.keys() >= SCENES
    assert BUFFERED.keys() >= SCENES


# ---- staleness


def test_what_is_too_stale_is_ended_at_once_and_its_receipt_says_why(script: Callable[..., Any]) -> None:
    play = Play(script, **buffering(max_staleness=1))
    stale = play.f.tasks["b-0"]
    play.act("""
        a-1 finds 0 is 0.5        |
        b-0 finds 0 is 0.5        |
        a-0 delivers              | fold a-0 x10 · 0.6, metrics 0 accuracy=0.5/20, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        a-0 delivers              | fold a-0 x10 · 0.6, commit 2 of a-0
        2 is committed            | begin 3, a-1 discards 0, b-0 discards 0, a-0 trains 2, a-1 trains 2, b-0 trains 2
    """)
    assert not play.f.machine.expects(stale)
    assert play.f.machine.why_late(stale) == (
        "it is trained from version 0 and the newest is 2: more than maxStaleness 1"
    )
    assert play.f.do(m.UpdateVerified(stale, m.Work(10, 1, 1.0))) == []


def test_what_becomes_too_stale_while_it_waits_for_its_version_does_not_count(script: Callable[..., Any]) -> None:
    play = Play(script, **buffering(max_staleness=1))
    play.act("""
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        a-1 b-0 deliver           |
        1 is committed            | begin 2, fold a-1 x10 · 0.3, commit 2 of a-1
        2 is committed            | begin 3, drop b-0, a-0 trains 2, a-1 trains 2, b-0 trains 2
    """)


def test_versions_are_served_while_a_task_refers_to_them(script: Callable[..., Any]) -> None:
    f = script(learners=2, min_learners=1, max_rounds=10, **buffering())
    f.started("a-0", "a-1")
    for version in (1, 2):
        f.uploads("a-0")
        f.committed(version)
    assert f.machine.versions == {0, 2}, "a-1 is still at work from version 0"
    f.uploads("a-1")
    f.committed(3)
    assert f.machine.versions == {2, 3}


@given(st.integers(0, 1000), st.floats(0.0, 5.0))
def test_polynomial_weights_are_the_papers(staleness: int, exponent: float) -> None:
    assert polynomial(exponent)(staleness) == pytest.approx((staleness + 1.0) ** (-exponent), rel=1e-12)


@pytest.mark.parametrize(("staleness", "weight"), [(0, 1), (4, 1), (5, 1 / 11), (6, 1 / 21), (14, 1 / 101)])
def test_hinge_weights_are_the_papers(staleness: int, weight: float) -> None:
    assert hinge(10.0, 4)(staleness) == pytest.approx(weight, rel=1e-12)


@given(st.sampled_from(StalenessType), st.integers(0, 999))
def test_staler_updates_never_count_for_more(kind: StalenessType, staleness: int) -> None:
    weight = weight_of(StalenessSpec(type=kind))
    assert weight(0) == 1
    assert 0 < weight(staleness + 1) <= weight(staleness)


# ---- evaluation: a survey of one version


SURVEYS = """
at first                  | begin 1, a-0 trains and evaluates 0, a-1 trains and evaluates 0, b-0 trains and evaluates 0
a-0 finds 0 is 0.25       |
a-1 finds 0 is 0.5        |
a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
1 is committed            | begin 2, a-0 trains 1
b-0 finds 0 is 0.75       | metrics 0 accuracy=0.5/30
a-0 delivers              | fold a-0 x10 · 0.6, commit 2 of a-0
2 is committed            | begin 3, a-0 trains and evaluates 2
a-0 finds 2 is 0.6        |
a-1 delivers              | fold a-1 x10 · 0.2, commit 3 of a-1
3 is committed            | begin 4, a-1 evaluates 2
a-1 finds 2 is 0.7        | a-1 trains 3
b-0 is lost               | metrics 2 accuracy=0.65/20
"""


def test_one_version_at_a_time_is_evaluated_by_everybody(script: Callable[..., Any]) -> None:
    Play(script, **buffering() | {"evaluate_every": 1}).act(SURVEYS)


def test_a_version_that_reaches_the_target_is_published_though_there_are_newer_ones(script: Callable[..., Any]) -> None:
    target = Target("accuracy", at_least=0.6)
    play = Play(script, **buffering() | {"evaluate_every": 1, "target": target})
    play.act(
        SURVEYS.replace(
            "metrics 2 accuracy=0.65/20",
            "metrics 2 accuracy=0.65/20, a-0 discards 2, a-1 discards 3, Complete: TargetMetricReached at 2",
        )
    )
    assert play.f.end.published == 2


def test_a_survey_ends_at_its_deadline(script: Callable[..., Any]) -> None:
    play = Play(script, **buffering() | {"evaluate_every": 1})
    play.act("""
        a-0 finds 0 is 0.25       |
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        99 seconds pass           |
        1 seconds pass            | metrics 0 accuracy=0.25/10
    """)


# ---- the end


def test_all_versions_are_made_and_the_last_is_evaluated(script: Callable[..., Any]) -> None:
    play = Play(script, **buffering() | {"max_rounds": 2})
    play.act("""
        a-0 delivers              | fold a-0 x10 · 0.6, commit 1 of a-0
        1 is committed            | begin 2, a-0 trains 1
        a-1 delivers              | fold a-1 x10 · 0.3, commit 2 of a-1
        2 is committed            | a-0 discards 1, b-0 discards 0, a-0 evaluates 2, a-1 evaluates 2, b-0 evaluates 2
        a-0 finds 2 is 0.5        |
        a-1 finds 2 is 0.5        |
        b-0 finds 2 is 0.5        | metrics 2 accuracy=0.5/30, Complete: MaxRoundsReached at 2
    """)


def test_tasks_from_one_version_are_told_apart_and_shuffle_differently(script: Callable[..., Any]) -> None:
    f = script(learners=1, max_rounds=10, **buffering(size=3))
    f.started("a-0")
    f.uploads("a-0")
    f.uploads("a-0")
    orders = [dispatch.order for dispatch in f.orders[-3:]]
    assert len({order.task for order in orders}) == len({order.seed for order in orders}) == 3
    assert {order.task.base_version for order in orders} == {0}

"""The Synchronous protocol in every scene, with over-selection and with late updates; see `plays`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.controller.protocols.plays import SCENES, Play

QUORUM = {"quorum_percent": 60}

PLAYS: dict[str, tuple[dict[str, Any], str]] = {
    "normal": (
        {},
        """
        at first                  | begin 1, a-0 trains and evaluates 0, a-1 trains and evaluates 0,
                                  | b-0 trains and evaluates 0
        a-1 b-0 deliver           | fold a-1 x10, fold b-0 x10
        a-0 delivers              | fold a-0 x10, commit 1 of a-0 a-1 b-0
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1, b-0 trains 1
        """,
    ),
    "late": (
        QUORUM,
        """
        a-0 a-1 deliver           | fold a-0 x10, fold a-1 x10
        99 seconds pass           |
        1 seconds pass            | commit 1 of a-0 a-1, lost b-0, b-0 discards 0
        b-0 delivers              |
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1, b-0 trains 1
        """,
    ),
    "dead": (
        QUORUM,
        """
        b-0 is lost               |
        a-0 a-1 deliver           | fold a-0 x10, fold a-1 x10, commit 1 of a-0 a-1, lost b-0
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1
        """,
    ),
    "leaving": (
        QUORUM,
        """
        a-0 a-1 deliver           | fold a-0 x10, fold a-1 x10
        b-0 is gone               | commit 1 of a-0 a-1, lost b-0
        """,
    ),
    "what a leaver delivered stays": (
        {},
        """
        a-0 delivers              | fold a-0 x10
        a-0 is gone               |
        a-1 b-0 deliver           | fold a-1 x10, fold b-0 x10, commit 1 of a-0 a-1 b-0
        1 is committed            | begin 2, a-1 trains 1, b-0 trains 1
        """,
    ),
    "joining": (
        {},
        """
        c-0 appears               | c-0 waits
        a-0 a-1 b-0 deliver       | fold a-0 x10, fold a-1 x10, fold b-0 x10, commit 1 of a-0 a-1 b-0
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1, b-0 trains 1, c-0 trains 1
        """,
    ),
    "all dead": (
        {},
        """
        a-0 a-1 b-0 are lost      |
        100 seconds pass          |
        100 seconds pass          |
        100 seconds pass          | Failed: QuorumNotReached at 0
        """,
    ),
    "controller restart": (
        {},
        """
        a-0 a-1 deliver           | fold a-0 x10, fold a-1 x10
        the controller restarts   |
        a-0 returns holding its result | a-0 waits
        a-1 appears               | a-1 waits
        b-0 returns at work       | b-0 waits, begin 1, a-0 resends 0, a-1 trains and evaluates 0
        a-0 a-1 b-0 deliver       | fold a-0 x10, fold a-1 x10, fold b-0 x10, commit 1 of a-0 a-1 b-0
        """,
    ),
    "over-selection closes with the needed number": (
        {"over_select": 1},
        """
        a-0 delivers              | fold a-0 x10
        b-0 delivers              | fold b-0 x10, commit 1 of a-0 b-0, lost a-1, a-1 discards 0
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1, b-0 trains 1
        """,
    ),
    "over-selection makes up for the dead": (
        {"over_select": 1},
        """
        a-1 is lost               |
        a-0 b-0 deliver           | fold a-0 x10, fold b-0 x10, commit 1 of a-0 b-0, lost a-1
        """,
    ),
    "a quorum is a share of the needed": (
        {"over_select": 1, "quorum_percent": 50},
        """
        a-0 delivers              | fold a-0 x10
        100 seconds pass          | commit 1 of a-0, lost a-1 b-0, a-1 discards 0, b-0 discards 0
        """,
    ),
    "an update may count in the next round": (
        {"over_select": 1, "late_updates": True},
        """
        a-0 b-0 deliver           | fold a-0 x10, fold b-0 x10, commit 1 of a-0 b-0, lost a-1
        1 is committed            | begin 2, a-0 trains 1, b-0 trains 1
        a-1 delivers              | fold a-1 x10
        a-0 delivers              | fold a-0 x10, commit 2 of a-0 a-1, lost b-0
        2 is committed            | begin 3, a-0 trains 2, a-1 trains 2
        b-0 delivers              | fold b-0 x10
        """,
    ),
    "an update that is late by a second round is dropped": (
        {"over_select": 1, "late_updates": True},
        """
        a-0 b-0 deliver           | fold a-0 x10, fold b-0 x10, commit 1 of a-0 b-0, lost a-1
        1 is committed            | begin 2, a-0 trains 1, b-0 trains 1
        a-0 b-0 deliver           | fold a-0 x10, fold b-0 x10, commit 2 of a-0 b-0, lost a-1, a-1 discards 0
        a-1 delivers              |
        2 is committed            | begin 3, a-0 trains 2, a-1 trains 2, b-0 trains 2
        """,
    ),
    "a late learner that was lost returns with its result": (
        {"over_select": 1, "late_updates": True},
        """
        a-1 is lost               |
        a-0 b-0 deliver           | fold a-0 x10, fold b-0 x10, commit 1 of a-0 b-0, lost a-1
        1 is committed            | begin 2, a-0 trains 1, b-0 trains 1
        a-1 returns holding its result | a-1 resends 0
        a-1 a-0 deliver           | fold a-1 x10, fold a-0 x10, commit 2 of a-0 a-1, lost b-0
        """,
    ),
    "a learner that failed is not late": (
        {"over_select": 1, "late_updates": True},
        """
        a-1 fails                 |
        a-0 b-0 deliver           | fold a-0 x10, fold b-0 x10, commit 1 of a-0 b-0, lost a-1
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1, b-0 trains 1
        """,
    ),
    "a late learner that fails between two rounds begins anew": (
        {"over_select": 1, "late_updates": True},
        """
        a-0 b-0 deliver           | fold a-0 x10, fold b-0 x10, commit 1 of a-0 b-0, lost a-1
        a-1 fails                 |
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1, b-0 trains 1
        """,
    ),
    "a late learner that was restarted begins anew": (
        {"over_select": 1, "late_updates": True},
        """
        a-0 b-0 deliver           | fold a-0 x10, fold b-0 x10, commit 1 of a-0 b-0, lost a-1
        a-1 appears               | a-1 waits
        1 is committed            | begin 2, a-0 trains 1, a-1 trains 1, b-0 trains 1
        """,
    ),
}


@pytest.mark.parametrize("scene", PLAYS)
def test_scene(script: Callable[..., Any], scene: str) -> None:
    plan, text = PLAYS[scene]
    Play(script, **plan).act(text)


def test_every_scene_is_played() -> None:
    assert PLAYS.keys() >= SCENES


def test_metisfl_defect_a_dead_learner_hangs_a_synchronous_run_for_ever(script: Callable[..., Any]) -> None:
    """Learners die silently in every round, and the run comes to an end all the same."""
    f = script(learners=3, min_learners=2, quorum_percent=60, max_rounds=3)
    f.started("a-0", "a-1", "b-0")
    for version in (1, 2, 3):
        f.uploads("a-0", "a-1")
        f.after(100)  # b-0 stays connected, and never delivers
        f.committed(version)
    f.evaluates(3, a_0=0.5, a_1=0.5)
    f.after(100)
    assert (f.end.complete, f.end.reason, f.end.published) == (True, "MaxRoundsReached", 3)


def test_what_is_late_is_not_refused_between_two_rounds(script: Callable[..., Any]) -> None:
    """It is told to try again, as the round in which it counts has not begun."""
    f = script(learners=2, over_select=1, late_updates=True)
    f.started("a-0", "a-1")
    late = f.tasks["a-1"]
    f.uploads("a-0")
    assert not f.machine.expects(late)
    assert f.machine.will_expect(late)
    f.committed(1)
    assert f.machine.expects(late)
    assert f.machine.versions == {0, 1}, "it may still be at its download"

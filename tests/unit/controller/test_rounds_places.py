"""Learners that lose their place in the middle of a round, and get it again, on fake time. Lines are Script's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metisfl_controller.rounds.selection.round_robin import RoundRobin

Scripts = Callable[..., Any]

DEADLINE = 100.0
FIVE = tuple(f"a-{i}" for i in range(5))
TEN = tuple(f"a-{i}" for i in range(10))


def revoke(f: Any, *learners: str) -> list[str]:
    """From now on these are revoked and no others; the controller ends their connections."""
    said = list(f.changes(revoked=frozenset(learners)))
    return said + (f.lost(*learners) if learners else [])


def of_krum(script: Scripts) -> Any:
    """Five learners, one of whom may be byzantine: 2f + 3 updates are needed."""
    f = script(learners=5, min_updates=5, round_deadline=DEADLINE)
    f.started(*FIVE)
    return f


def test_krum_gets_the_update_of_who_was_revoked_for_a_moment(script: Scripts) -> None:
    f = of_krum(script)
    revoke(f, "a-4")
    assert revoke(f) == []
    assert f.ready("a-4") == ["a-4 trains and evaluates 0"]
    f.uploads("a-0", "a-1", "a-2", "a-3")
    assert f.uploads("a-4")[-1] == "commit 1 of a-0 a-1 a-2 a-3 a-4"


def test_it_does_when_all_others_are_done(script: Scripts) -> None:
    f = of_krum(script)
    f.uploads("a-0", "a-1", "a-2", "a-3")
    assert revoke(f, "a-4") == []
    revoke(f)
    f.after(DEADLINE - 1)
    f.ready("a-4")
    assert f.uploads("a-4")[-1] == "commit 1 of a-0 a-1 a-2 a-3 a-4"


def test_it_waits_three_deadlines_for_a_place_that_does_not_come_back(script: Scripts) -> None:
    f = of_krum(script)
    f.uploads("a-0", "a-1", "a-2", "a-3")
    revoke(f, "a-4")
    assert f.after(DEADLINE) == []
    assert f.after(DEADLINE) == []
    assert f.after(DEADLINE - 1) == []
    assert f.after(1)[-1] == "Failed: QuorumNotReached at 0"
    assert f.end.message.endswith("missing: a-4")


def test_a_round_of_one_goes_on_when_its_learner_has_its_place_again(script: Scripts) -> None:
    f = script(learners=1, round_deadline=DEADLINE)
    f.started("a-0")
    assert revoke(f, "a-0") == []
    assert f.after(DEADLINE) == []
    revoke(f)
    assert f.ready("a-0") == ["a-0 trains and evaluates 0"]
    assert f.uploads("a-0")[-1] == "commit 1 of a-0"


def test_who_is_there_before_its_place_is_gets_its_part_with_the_place(script: Scripts) -> None:
    f = of_krum(script)
    revoke(f, "a-4")
    assert f.ready("a-4") == ["a-4 waits"]
    assert f.changes(revoked=frozenset()) == ["a-4 trains and evaluates 0"]


def test_an_upload_that_was_under_way_counts_with_the_place_only(script: Scripts) -> None:
    f = of_krum(script)
    revoke(f, "a-4")
    assert f.uploads("a-4") == []
    revoke(f)
    assert f.uploads("a-4") == ["fold a-4 x10"]


@pytest.mark.parametrize("over_select", [0, 1])
def test_down_and_up_again_in_one_round_needs_as_many_as_before(script: Scripts, over_select: int) -> None:
    f = script(learners=3, over_select=over_select)
    f.started("a-0", "a-1", "a-2")
    f.changes(places={"a": 1})
    f.lost("a-1", "a-2")
    assert f.machine.round.quorum == 1
    assert f.changes(places={"a": 3}) == []
    assert f.machine.round.quorum == 3 - over_select
    assert f.ready("a-2") == ["a-2 trains and evaluates 0"]
    assert not any("commit" in line for line in f.uploads("a-0"))
    assert any("commit" in line for line in f.uploads("a-2")) == bool(over_select)


def test_who_was_scaled_up_again_and_has_not_come_is_lost_as_others_are(script: Scripts) -> None:
    f = script(learners=2, quorum_percent=50)
    f.started("a-0", "a-1")
    f.changes(places={"a": 1})
    f.lost("a-1")
    f.changes(places={"a": 2})
    assert f.uploads("a-0")[-1] == "commit 1 of a-0, lost a-1"


def test_metrics_of_who_has_its_place_again_are_waited_for(script: Scripts) -> None:
    f = script(learners=2)
    f.started("a-0", "a-1")
    revoke(f, "a-1")
    revoke(f)
    assert not any("metrics" in line for line in f.evaluates(0, a_0=0.5))
    f.ready("a-1")
    assert "metrics 0 accuracy=0.5/20" in f.evaluates(0, a_1=0.5)


def test_as_many_replace_those_without_a_place_as_the_selection_takes(script: Scripts) -> None:
    f = script(learners=10, selection=RoundRobin(2))
    f.started(*TEN)
    assert revoke(f, "a-0", "a-1") == ["a-2 trains and evaluates 0", "a-3 trains and evaluates 0"]
    assert f.uploads("a-2", "a-3")[-1] == "commit 1 of a-2 a-3, lost a-0 a-1"


def test_they_are_not_replaced_in_the_last_attempt_but_waited_for(script: Scripts) -> None:
    f = script(learners=4, selection=RoundRobin(1), max_attempts=1)
    f.started("a-0", "a-1", "a-2", "a-3")
    assert revoke(f, "a-0") == []
    revoke(f)
    f.ready("a-0")
    assert f.uploads("a-0")[-1] == "commit 1 of a-0"

"""Shares of the data never move: whatever is done to the groups, in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.spec import Federation, LearnerGroup
from metisfl_controller.partitions import PartitionPlan as ControllersPlan
from metisfl_operator.partitions import PartitionPlan, PlanError

groups = st.lists(
    st.builds(
        lambda name, replicas: LearnerGroup(name=name, replicas=replicas), st.sampled_from("abcde"), st.integers(0, 6)
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda group: group.name,
)


@given(st.integers(1, 20), st.lists(groups, min_size=1, max_size=6))
def test_shares_are_never_moved_nor_given_twice(count: int, history: list[list[LearnerGroup]]) -> None:
    plan = PartitionPlan(count, {}, {})
    shares: dict[int, str] = {}
    for wanted in history:
        plan = plan.extended(wanted)
        for group in wanted:
            for ordinal in range(min(group.replicas, plan.room(group.name))):
                share = plan.offsets[group.name] + ordinal
                assert 0 <= share < count
                assert shares.setdefault(share, f"{group.name}-{ordinal}") == f"{group.name}-{ordinal}"
        assert PartitionPlan.parse(plan.text()) == plan
        assert plan.extended(wanted) == plan


@given(groups, st.integers(0, 5))
def test_a_new_federation_divides_as_the_controller_alone_would(wanted: list[LearnerGroup], spare: int) -> None:
    """The same file gives each learner the same data on a laptop and in a cluster."""
    total = sum(group.replicas for group in wanted)
    plan = PartitionPlan(total + spare, {}, {}).extended(wanted) if total else None
    offset = 0
    for group in wanted if plan else []:
        if group.replicas:
            assert plan is not None
            assert plan.offsets[group.name] == offset
            assert plan.room(group.name) >= group.replicas
        offset += group.replicas


def test_an_external_group_has_a_share_for_each_learner_that_may_join() -> None:
    groups = [
        LearnerGroup(name="a", replicas=2),
        LearnerGroup(name="hospital", external=True, max_learners=4),
        LearnerGroup(name="b"),
    ]
    assert PartitionPlan(7, {}, {}).extended(groups).offsets == {"a": 0, "hospital": 2, "b": 6}


def test_the_controller_reads_the_plan(federation: Callable[..., Federation]) -> None:
    spec = federation().spec
    plan = PartitionPlan.of(spec)
    assert ControllersPlan.model_validate(plan.for_controller()) == ControllersPlan.of(spec)


def test_a_group_that_was_scaled_down_keeps_its_shares() -> None:
    def group(name: str, replicas: int) -> LearnerGroup:
        return LearnerGroup(name=name, replicas=replicas)

    plan = PartitionPlan(6, {}, {}).extended([group("a", 4)]).extended([group("a", 1), group("b", 1)])
    assert plan.offsets == {"a": 0, "b": 4}
    assert plan.room("a") == 4


def test_a_group_for_which_nothing_is_left_has_no_room() -> None:
    plan = PartitionPlan(2, {}, {}).extended([LearnerGroup(name="a", replicas=2), LearnerGroup(name="b", replicas=1)])
    assert plan.room("b") == 0
    assert "b" not in plan.offsets


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"count": 0, "offsets": {}, "sizes": {}}', '{"count": 2, "offsets": {"a": 0}, "sizes": {}}'],
)
def test_a_damaged_plan_is_not_guessed(text: Any) -> None:
    with pytest.raises(PlanError, match="no readable partition plan"):
        PartitionPlan.parse(text)

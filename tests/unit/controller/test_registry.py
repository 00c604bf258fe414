"""Learners, leases and shares of the data."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from metisfl.spec import parse_federation
from metisfl.spec.federation import FederationSpec
from metisfl.wire.layout import Layout
from metisfl_controller.partitions import PartitionPlan
from metisfl_controller.rounds.plan import Plan, Target, quorum_of
from metisfl_controller.state.registry import JoinRefusedError, Registry, UnknownLeaseError

PLACES = {"a": 2, "b-c": 1}


def spec(**changes: Any) -> FederationSpec:
    document = {
        "apiVersion": "metisfl.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": "test"},
        "spec": {
            "learner": {"entrypoint": "m:C", "parameters": {"x": "1", "y": "2"}},
            "learnerGroups": [
                {"name": "a", "replicas": 2, "parameters": {"y": "3"}},
                {"name": "b-c", "replicas": 1},
            ],
            **changes,
        },
    }
    return parse_federation(json.loads(json.dumps(document))).spec


@pytest.fixture
def registry() -> Registry:
    return Registry.of(spec(), PartitionPlan.of(spec()), lease_seconds=20)


# ---- registry


def test_a_learner_gets_its_place_share_and_parameters(registry: Registry) -> None:
    learner = registry.join("b-c", 0, "torch", now=1.0)
    assert (learner.id, learner.partition, learner.framework) == ("b-c-0", 2, "torch")
    assert dict(learner.parameters) == {"x": "1", "y": "2"}
    assert dict(registry.join("a", 1, "", now=1.0).parameters) == {"x": "1", "y": "3"}
    assert registry.holder(learner.lease, now=2.0) is learner
    assert learner.last_seen == 2.0


def with_evaluators(role: str = "Evaluator") -> FederationSpec:
    return spec(learnerGroups=[{"name": "judge", "replicas": 2, "role": role}, {"name": "a", "replicas": 2}])


def test_evaluators_take_no_share_and_see_the_whole_data() -> None:
    plan = PartitionPlan.of(with_evaluators())
    assert (plan.count, dict(plan.offsets)) == (2, {"a": 0})
    registry = Registry.of(with_evaluators(), plan, lease_seconds=20)
    for ordinal in (0, 1):
        evaluator = registry.join("judge", ordinal, "", now=1.0)
        assert (evaluator.evaluator, evaluator.partition, evaluator.partitions) == (True, 0, 1)
        learner = registry.join("a", ordinal, "", now=1.0)
        assert (learner.evaluator, learner.partition, learner.partitions) == (False, ordinal, 2)
    assert (registry.desired, registry.desired_evaluators) == (2, 2)


def test_who_changes_its_role_has_to_join_again() -> None:
    plan = PartitionPlan.of(with_evaluators("Learner"))
    registry = Registry.of(with_evaluators("Learner"), plan, lease_seconds=20)
    learner = registry.join("judge", 0, "", now=1.0)
    registry.amend(with_evaluators(), plan)
    assert registry.outdated() == [learner]
    assert not learner.evaluator, "it is still what it joined as"
    assert registry.join("judge", 0, "", now=2.0).evaluator


def test_evaluators_count_for_no_number_of_learners() -> None:
    plan = Plan.of(with_evaluators())
    assert (plan.expected_learners, plan.min_learners) == (2, 2)
    assert plan.evaluators == ("judge-0", "judge-1")


def test_a_second_join_ends_the_first_lease(registry: Registry) -> None:
    first = registry.join("a", 0, "", now=1.0).lease
    learner = registry.join("a", 0, "", now=2.0)
    assert learner.lease != first
    with pytest.raises(UnknownLeaseError, match="join again"):
        registry.holder(first, now=3.0)
    assert registry.holder(learner.lease, now=3.0) is learner
    assert len(registry.learners) == 1


@pytest.mark.parametrize(
    ("group", "ordinal", "complaint"),
    [
        ("z", 0, "there is no learner group 'z'; the groups are a, b-c"),
        ("", 0, "there is no learner group ''"),
        ("x" * 1000, 0, "there is no learner group 'x{63}'"),
        ("a", 2, "group 'a' has 2 learners, numbered from 0; a-2 is not one of them"),
        ("b", 2**32 - 1, "no learner group 'b'"),
    ],
)
def test_strangers_are_refused(registry: Registry, group: str, ordinal: int, complaint: str) -> None:
    with pytest.raises(JoinRefusedError, match=complaint):
        registry.join(group, ordinal, "", now=1.0)
    assert registry.learners == {}


def test_a_learner_without_a_share_is_refused_and_remembered() -> None:
    registry = Registry.of(spec(), PartitionPlan(count=2, offsets={"a": 0, "b-c": 2}), 20)
    with pytest.raises(JoinRefusedError, match="would take share 2"):
        registry.join("b-c", 0, "", now=1.0)
    assert "share 2" in registry.refusals["b-c-0"]


def test_leases_expire_by_silence(registry: Registry) -> None:
    a, b = registry.join("a", 0, "", now=0.0), registry.join("a", 1, "", now=10.0)
    assert registry.expired(20.0) == []
    assert registry.expired(20.5) == [a]
    registry.holder(a.lease, now=21.0)
    assert registry.expired(30.5) == [b]


def test_an_ended_lease_is_no_lease(registry: Registry) -> None:
    learner = registry.join("a", 0, "", now=0.0)
    lease = learner.lease
    learner.ready, learner.progress = True, 0.5
    registry.end(learner, "gone")
    assert (learner.ready, learner.activity, learner.progress, learner.message) == (False, "Lost", 0.0, "gone")
    for stale in (lease, ""):
        with pytest.raises(UnknownLeaseError):
            registry.holder(stale, now=1.0)
    assert registry.expired(1000.0) == []
    assert registry.join("a", 0, "", now=2.0).activity == "Idle"


def test_learners_of_another_layout(registry: Registry) -> None:
    mine, other = Layout.of({"w": np.zeros(2)}), Layout.of({"w": np.zeros(3)})
    for ordinal, layout in enumerate((mine, other)):
        registry.join("a", ordinal, "", now=0.0).layout = layout
    registry.join("b-c", 0, "", now=0.0)
    assert [learner.id for learner in registry.others(mine)] == ["a-1"]


@pytest.mark.parametrize(("lease", "heartbeat"), [(20, 5), (2, 1), (7, 1), (60, 15)])
def test_heartbeats_fit_several_times_into_a_lease(lease: float, heartbeat: int) -> None:
    assert Registry.of(spec(), PartitionPlan.of(spec()), lease).heartbeat_seconds == heartbeat


# ---- partitions


def test_shares_follow_the_groups() -> None:
    plan = PartitionPlan.of(spec())
    assert plan == PartitionPlan(count=3, offsets={"a": 0, "b-c": 2})
    assert [plan.index("a", 0), plan.index("a", 1), plan.index("b-c", 0)] == [0, 1, 2]


def test_spare_shares_are_counted() -> None:
    assert PartitionPlan.of(spec(learner={"entrypoint": "m:C", "partitions": 10})).count == 10


@pytest.mark.parametrize(
    ("group", "ordinal", "complaint"),
    [("c", 0, "group 'c' has no share of the data"), ("b-c", 1, "would take share 3, and the data was divided into 3")],
)
def test_there_is_no_share_for_others(group: str, ordinal: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PartitionPlan.of(spec()).index(group, ordinal)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"count": 0, "offsets": {}}', '{"count": 1, "offsets": {"a": -1}}', '{"count":1,"x":2}']
)
def test_a_plan_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's own words
        PartitionPlan.model_validate_json(text)


# ---- plan


def test_a_plan_from_the_defaults() -> None:
    assert Plan.of(spec()) == Plan(
        expected_learners=3, min_learners=3, quorum_percent=100, round_deadline=600, max_rounds=10, places=PLACES
    )


def test_places_are_those_of_the_groups_without_the_revoked() -> None:
    outside = [{"name": "b-c", "replicas": 2}, {"name": "out", "external": True, "maxLearners": 2}]
    plan = Plan.of(spec(learnerGroups=outside, security={"revoked": ["b-c-0"]}))
    asked = ("b-c-0", "b-c-1", "b-c-2", "out-1", "out-2", "a-0")
    assert [learner for learner in asked if plan.has_place(learner)] == ["b-c-1", "out-1"]


def test_a_plan_from_everything() -> None:
    plan = Plan.of(
        spec(
            protocol={"synchronous": {"quorumPercent": 34, "roundDeadlineSeconds": 7}},
            evaluation={"everyRounds": 2},
            termination={
                "maxRounds": 5,
                "maxDurationSeconds": 60,
                "targetMetric": {"name": "loss", "atMost": "-0.5"},
            },
        )
    )
    assert plan == Plan(
        expected_learners=3,
        min_learners=2,
        quorum_percent=34,
        round_deadline=7,
        max_rounds=5,
        evaluate_every=2,
        max_duration=60,
        target=Target("loss", at_most=-0.5),
        places=PLACES,
    )
    assert [version for version in range(6) if plan.evaluates(version)] == [0, 2, 4]
    assert Plan.of(spec(selection={"minLearners": 1})).min_learners == 1


@pytest.mark.parametrize(
    ("participants", "percent", "quorum"),
    [(4, 75, 3), (4, 76, 4), (3, 67, 3), (3, 66, 2), (10, 1, 1), (0, 100, 1), (1, 50, 1), (100, 29, 29), (7, 100, 7)],
)
def test_the_quorum_is_rounded_up(participants: int, percent: int, quorum: int) -> None:
    assert quorum_of(participants, percent) == quorum


def test_no_quorum_is_off_by_one_through_floating_point() -> None:
    for participants in range(1, 400):
        for percent in range(1, 101):
            assert quorum_of(participants, percent) == max(1, -(-participants * percent // 100))


@pytest.mark.parametrize(
    ("target", "met", "missed"),
    [(Target("a", at_least=0.9), (0.9, 1.0), (0.89,)), (Target("a", at_most=0.0), (0.0, -1.0), (0.01,))],
)
def test_bounds_belong_to_the_target(target: Target, met: tuple[float, ...], missed: tuple[float, ...]) -> None:
    assert all(target.met_by(value) for value in met)
    assert not any(target.met_by(value) for value in missed)


# ---- external groups


EXTERNAL = [{"name": "a", "replicas": 2}, {"name": "hospital", "external": True, "maxLearners": 3}]


def test_learners_of_an_external_group_may_join_up_to_its_bound() -> None:
    federation = spec(learnerGroups=EXTERNAL)
    registry = Registry.of(federation, PartitionPlan.of(federation), lease_seconds=20)
    assert registry.join("hospital", 2, "", now=1.0).partition == 4
    with pytest.raises(JoinRefusedError, match="group 'hospital' has 3 learners"):
        registry.join("hospital", 3, "", now=1.0)


def test_a_run_counts_on_one_learner_of_an_external_group() -> None:
    plan = Plan.of(spec(learnerGroups=EXTERNAL))
    assert (plan.min_learners, plan.expected_learners) == (3, 3)


def test_external_learners_are_desired_once_they_are_there() -> None:
    federation = spec(learnerGroups=EXTERNAL)
    registry = Registry.of(federation, PartitionPlan.of(federation), lease_seconds=20)
    assert registry.desired == 3
    first = registry.join("hospital", 0, "", now=1.0)
    assert registry.desired == 3
    registry.join("hospital", 1, "", now=1.0)
    assert registry.desired == 4
    registry.end(first)
    assert registry.desired == 3

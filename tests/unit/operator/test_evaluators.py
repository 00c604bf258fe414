"""Evaluator groups in the operator: pods like any learner's, no share of the data, their own place in the status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from metisfl.api import EvaluatorDocument, FederationDocument, FederationState, LearnerDocument, MetricValue
from metisfl.spec import Federation
from metisfl.spec.status import ConditionType, FederationStatus
from metisfl_operator import names
from metisfl_operator.partitions import PartitionPlan
from metisfl_operator.reconcile.conditions import conditions, find
from metisfl_operator.reconcile.desired import desired
from metisfl_operator.reconcile.lifecycle import Lifecycle
from metisfl_operator.reconcile.observe import Observed
from metisfl_operator.reconcile.situation import Situation
from metisfl_operator.reconcile.status import status_of
from metisfl_operator.resources.metadata import Owner
from metisfl_operator.settings import Settings

GROUPS = [{"name": "judge", "role": "Evaluator", "replicas": 2}, {"name": "a", "replicas": 2}]


@pytest.fixture
def with_evaluators(federation: Callable[..., Federation]) -> Federation:
    target = {"name": "loss", "atMost": "0.1", "source": "Evaluators"}
    return federation(learnerGroups=GROUPS, termination={"targetMetric": target})


def document(**changes: Any) -> FederationDocument:
    learners = [LearnerDocument(id=f"a-{n}", group="a", connected=True, activity="Training") for n in range(2)]
    judge = EvaluatorDocument(
        id="judge-0", group="judge", connected=True, activity="Idle", version=3, evaluations=3, missed=1
    )
    lost = EvaluatorDocument(id="judge-1", group="judge", connected=False, activity="Lost", message="silent for 21 s")
    values: dict[str, Any] = {
        "name": "demo",
        "uid": "u-1",
        "incarnation": 1,
        "state": FederationState.TRAINING,
        "max_rounds": 9,
        "learners": learners,
        "evaluators": [judge, lost],
        "evaluator_metrics": [
            MetricValue(name=name, value=value, version=3, examples=10)
            for name, value in (("acc", 0.5), ("loss", 0.25))
        ],
        **changes,
    }
    return FederationDocument(**values)


@pytest.fixture
def situation(with_evaluators: Federation, owner: Owner) -> Situation:
    return Situation(
        owner=owner,
        federation=with_evaluators,
        stage=Lifecycle.RUNNING,
        observed=Observed({}, document=document()),
        awaited=2,
        previous=FederationStatus(),
        now=datetime(2024, 5, 1, 10, tzinfo=UTC),
    )


def test_evaluators_have_pods_and_no_shares(with_evaluators: Federation, owner: Owner, settings: Settings) -> None:
    plan = PartitionPlan.of(with_evaluators.spec)
    assert (plan.count, plan.offsets) == (2, {"a": 0})
    wanted = desired(with_evaluators, owner, settings, plan, Lifecycle.RUNNING)
    assert (wanted.learners, wanted.crowded) == (2, {})
    replicas = {m["metadata"]["name"]: m["spec"]["replicas"] for m in wanted.manifests if m["kind"] == "StatefulSet"}
    assert replicas["demo-judge"] == 2
    assert replicas["demo-a"] == 2


def test_learners_are_ready_whatever_becomes_of_evaluators(situation: Situation) -> None:
    crashed = {
        "metadata": {
            "name": "demo-judge-1",
            "uid": "p",
            "labels": {names.LABEL_COMPONENT: names.LEARNER, names.LABEL_GROUP: "judge"},
        },
        "status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 4, "message": "no data"}}}]},
    }
    troubled = replace(situation, observed=replace(situation.observed, pods=[crashed]))
    ready = find(conditions(troubled), ConditionType.LEARNERS_READY)
    assert ready is not None
    assert (ready.status, ready.message) == ("True", "2 of 2 learners are connected")
    evaluators = status_of(troubled).evaluators
    assert evaluators is not None
    assert evaluators.message is not None
    assert "no data" in evaluators.message


def test_the_status_keeps_evaluators_apart(situation: Situation) -> None:
    status = status_of(situation)
    assert status.learners is not None
    assert status.learners.summary == "2/2"
    assert status.metrics == []
    evaluators = status.evaluators
    assert evaluators is not None
    assert (evaluators.summary, evaluators.version) == ("1/2", 3)
    assert [(metric.name, metric.value) for metric in evaluators.metrics] == [("loss", "0.25"), ("acc", "0.5")]
    assert evaluators.message == "judge-1: silent for 21 s; judge-0 was busy or away for 1 version"
    # While the controller is silent, its last figures stay.
    silent = replace(situation, observed=Observed({}), previous=status)
    kept = status_of(silent).evaluators
    assert kept is not None
    assert (kept.summary, kept.version, kept.metrics) == ("0/2", 3, evaluators.metrics)


def test_there_is_nothing_to_say_without_evaluators(
    federation: Callable[..., Federation], situation: Situation
) -> None:
    plain = replace(situation, federation=federation(), observed=Observed({}, document=document(evaluators=[])))
    assert status_of(plain).evaluators is None

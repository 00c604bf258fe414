"""Which shares of the data an archive says are taken."""

from __future__ import annotations

from typing import Any

import pytest

from metisfl.archive import Plan
from metisfl.partitions import Shares
from metisfl.spec import FederationSpec, parse_federation
from metisfl_controller.partitions import PartitionPlan
from metisfl_controller.state.export import plan_of


def spec(count: int, **groups: int) -> FederationSpec:
    return parse_federation(
        {
            "apiVersion": "metisfl.dev/v1alpha1",
            "kind": "Federation",
            "metadata": {"name": "demo"},
            "spec": {
                "learner": {"entrypoint": "m:C", "partitions": count},
                "learnerGroups": [{"name": name, "replicas": replicas} for name, replicas in groups.items()],
            },
        }
    ).spec


def shares(plan: Plan) -> Shares:
    return Shares(plan.count, plan.offsets, plan.sizes)


@pytest.mark.parametrize(
    ("now", "learners", "sizes"),
    [
        pytest.param({"a": 2, "b": 1}, [], {"a": 2, "b": 1}, id="as it began"),
        pytest.param({"a": 2, "b": 1}, ["b-0", "b-3"], {"a": 2, "b": 4}, id="scaled down"),
        pytest.param({"a": 2}, ["a-1", "b-1"], {"a": 2, "b": 2}, id="removed"),
        pytest.param({"a": 5, "b": 1}, [], {"a": 2, "b": 1}, id="wants more than there is"),
        pytest.param({"a": 2, "b": 1}, ["c-7"], {"a": 2, "b": 1}, id="an evaluator"),
    ],
)
def test_a_group_has_the_shares_that_its_learners_ever_had(
    now: dict[str, int], learners: list[str], sizes: dict[str, int]
) -> None:
    plan = PartitionPlan(count=8, offsets={"a": 0, "b": 2})
    assert plan_of(plan, spec(8, **now), learners).sizes == sizes


def test_a_group_that_comes_later_gets_no_share_that_somebody_had() -> None:
    """As the operator deals them: the same as if the federation had never been moved."""
    first: Any = Shares.of(spec(8, a=2, b=3))
    stayed = first.extended(spec(8, a=2, b=1, c=2).training_groups)
    kept = plan_of(PartitionPlan(count=8, offsets=first.offsets), spec(8, a=2, b=1), ["a-0", "a-1", "b-0", "b-2"])
    assert shares(kept).extended(spec(8, a=2, b=1, c=2).training_groups) == stayed
    assert stayed.offsets["c"] == 5

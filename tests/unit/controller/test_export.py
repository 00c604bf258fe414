"""Which shares of the data an archive says are taken, and which states of rules are in it."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from metisfl.archive import Plan, unpack
from metisfl.partitions import Shares
from metisfl.spec import FederationSpec, parse_federation
from metisfl_controller.partitions import PartitionPlan
from metisfl_controller.state.export import export, plan_of
from metisfl_controller.state.rule_states import RuleStates
from metisfl_controller.state.store import Store
from tests.unit.controller import test_rule_states as states
from tests.unit.controller.test_store import LAYOUT, model


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


def test_a_state_that_stays_behind_is_not_named_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that died between commit and pruning leaves two states, here of different rules."""
    monkeypatch.setattr(RuleStates, "prune", lambda self: None)
    with closing(Store(tmp_path / "first", "uid-1", "digits")) as store:
        store.commit_initial(LAYOUT, model())
        states.commit(store, 1)
    with closing(Store(tmp_path / "first", "uid-1", "digits", maker="Adam")) as store:
        newest = states.commit(store, 2)
        made = export(store, "digits", "uid-1", Plan(count=2, offsets={"a": 0}, sizes={"a": 2}))
        unpack(io.BytesIO(b"".join(made.content())), tmp_path / "second")
    assert [path.name for path in (tmp_path / "second" / "models").glob("*-rule*")] == ["v000002-rule.safetensors"]
    with closing(Store(tmp_path / "second", "uid-2", "other", adopt=True, maker="Adam")) as store:
        assert store.read_rule_state(newest)["first"][0] == 2

"""A spec that is edited while the federation runs: what changes, when, and what may not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from metisfl.logs import logger
from metisfl.spec import parse_federation
from metisfl_controller.configuration import Configuration, ConfigurationFiles, follow
from metisfl_controller.partitions import PartitionPlan
from metisfl_controller.state.registry import JoinRefusedError, Registry

Scripts = Callable[..., Any]


def document(replicas: int = 2, parameters: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "metisfl.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": "test"},
        "spec": {
            "learner": {"entrypoint": "m:C", "partitions": 4, "parameters": parameters or {}},
            "learnerGroups": [{"name": "a", "replicas": replicas}],
            **spec,
        },
    }


# ---- rounds


def test_a_changed_plan_holds_from_the_next_round_on(script: Scripts) -> None:
    f = script(learners=1, max_rounds=2)
    f.started("a-0")
    deadline = f.orders[-1].order.deadline
    assert f.changes(max_rounds=1, round_deadline=7.0) == []
    assert f.orders[-1].order.deadline == deadline
    f.evaluates(0, a_0=0.5)
    f.uploads("a-0")
    assert f.committed(1) == ["new plan", "a-0 evaluates 1"]


def test_more_rounds_are_run_when_they_are_asked_for_before_the_last_has_ended(script: Scripts) -> None:
    f = script(learners=1, max_rounds=1)
    f.started("a-0")
    f.changes(max_rounds=2, round_deadline=7.0)
    f.uploads("a-0")
    assert f.committed(1) == ["new plan", "begin 2", "a-0 trains and evaluates 1"]
    assert f.orders[-1].order.deadline == f.now + 7.0


def test_fewer_learners_are_waited_for_at_once_when_no_round_is_open(script: Scripts) -> None:
    f = script(learners=3)
    f.ready("a-0", "a-1")
    assert f.changes(expected_learners=2, min_learners=2) == ["new plan", "a-0 initialises"]


def test_only_the_newest_of_several_changes_counts(script: Scripts) -> None:
    f = script(learners=1, max_rounds=2)
    f.started("a-0")
    f.changes(max_rounds=1)
    f.changes(max_rounds=9)
    f.uploads("a-0")
    assert f.committed(1)[0] == "new plan"
    assert f.machine.plan.max_rounds == 9


# ---- who takes part


@pytest.fixture
def registry() -> Registry:
    spec = parse_federation(document()).spec
    return Registry.of(spec, PartitionPlan.of(spec), lease_seconds=20)


def amend(registry: Registry, **changes: Any) -> None:
    spec = parse_federation(document(**changes)).spec
    registry.amend(spec, PartitionPlan.of(spec))


def test_a_group_that_grows_takes_newcomers_at_once(registry: Registry) -> None:
    with pytest.raises(JoinRefusedError):
        registry.join("a", 2, "", now=1.0)
    amend(registry, replicas=3)
    assert registry.join("a", 2, "", now=1.0).partition == 2


def test_learners_that_were_scaled_away_are_forgotten_once_they_are_gone(registry: Registry) -> None:
    for ordinal in range(2):
        registry.join("a", ordinal, "", now=1.0)
    amend(registry, replicas=1)
    assert list(registry.learners) == ["a-0", "a-1"]
    assert registry.displaced() == [registry.learners["a-1"]]
    registry.end(registry.learners["a-1"], "silent")
    assert list(registry.learners) == ["a-0"]
    registry.end(registry.learners["a-0"], "silent")
    assert list(registry.learners) == ["a-0"]
    amend(registry, replicas=1)
    assert list(registry.learners) == ["a-0"]


def test_changed_parameters_reach_a_learner_when_it_joins_again(registry: Registry) -> None:
    learner = registry.join("a", 0, "", now=1.0)
    assert registry.outdated() == []
    amend(registry, parameters={"alpha": "2"})
    assert registry.outdated() == [learner]
    assert dict(registry.join("a", 0, "", now=2.0).parameters) == {"alpha": "2"}
    assert registry.outdated() == []


# ---- the files


@pytest.fixture
def files(tmp_path: Path) -> ConfigurationFiles:
    found = ConfigurationFiles(tmp_path / "federation.json", tmp_path / "plan.json")
    write(found)
    return found


def write(files: ConfigurationFiles, **changes: Any) -> None:
    assert files.plan is not None
    files.federation.write_text(json.dumps(document(**changes)))
    files.plan.write_text(json.dumps({"count": 4, "offsets": {"a": 0}}))


@asynccontextmanager
async def following(files: ConfigurationFiles) -> AsyncIterator[asyncio.Queue[Configuration]]:
    found: asyncio.Queue[Configuration] = asyncio.Queue()
    task = asyncio.create_task(follow(files, files.read(), found.put_nowait, logger("test"), poll_seconds=0.01))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_edit_is_handed_over_once(files: ConfigurationFiles) -> None:
    async with asyncio.timeout(10), following(files) as found:
        write(files, termination={"maxRounds": 7})
        changed = await found.get()
        assert changed.federation.spec.termination.max_rounds == 7
        assert changed.digest == files.digest()
        write(files, replicas=3)
        assert (await found.get()).federation.spec.learner_groups[0].replicas == 3
        assert found.empty()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"termination": {"maxRounds": 0}}, "maxRounds"),
        ({"aggregation": {"deterministic": True}}, "aggregation is fixed"),
    ],
    ids=["not valid", "fixed"],
)
async def test_what_cannot_be_is_told_and_not_used(
    files: ConfigurationFiles, caplog: pytest.LogCaptureFixture, broken: dict[str, Any], told: str
) -> None:
    async with asyncio.timeout(10), following(files) as found:
        write(files, **broken)
        while not caplog.messages:  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.01)
        write(files, replicas=1)
        assert (await found.get()).federation.spec.learner_groups[0].replicas == 1
        assert found.empty()
    (message, *_) = caplog.messages
    assert told in message

"""A learner group with role Evaluator, over the wire: what it is told, asked and shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metisfl.proto.v1 import controller_pb2 as pb

Served = Callable[..., Any]
GROUPS = [{"name": "a", "replicas": 1}, {"name": "judge", "role": "Evaluator"}]


async def test_an_evaluator_gets_every_version_and_its_metrics_are_kept_apart(served: Served) -> None:
    termination = {"maxRounds": 2, "targetMetric": {"name": "accuracy", "atLeast": "2", "source": "Evaluators"}}
    async with served(
        learnerGroups=GROUPS, termination=termination, learner={"entrypoint": "m:C", "partitions": 2}
    ) as table:
        learner, judge = table.player("a-0"), table.player("judge-0")
        terms = await judge.join()
        assert (terms.evaluator, terms.partition.index, terms.partition.count) == (True, 0, 1)
        await judge.open()
        terms = await learner.join()
        assert (terms.evaluator, terms.partition.index, terms.partition.count) == (False, 0, 2)
        await learner.open()
        await learner.delivers(await learner.task("INITIALISE"))
        for version in (0, 1):
            task = await judge.task("EVALUATE")
            assert (task.model_version, task.deadline_seconds) == (version, 0)
            await judge.model(version)
            await judge.evaluate(task, examples=40, accuracy=0.5 + 0.1 * version)
            train = await learner.task("TRAIN")
            await learner.evaluate(train, accuracy=0.25)
            await learner.delivers(train)
        # The last version: the learner's metrics, and the evaluator's in time.
        await learner.evaluate(await learner.task("EVALUATE"), accuracy=0.25)
        await judge.evaluate(await judge.task("EVALUATE"), examples=40, accuracy=0.75)
        for player in (learner, judge):
            await player.task("STOP")
        status = await table.status()
        assert (status["state"], status["reason"]) == ("Complete", "MaxRoundsReached")
        assert [each["id"] for each in status["learners"]] == ["a-0"]
        assert [each["id"] for each in status["evaluators"]] == ["judge-0"]
        assert (status["desiredLearners"], status["desiredEvaluators"]) == (1, 1)
        assert (status["evaluators"][0]["evaluations"], status["evaluators"][0]["missed"]) == (3, 0)
        assert status["metrics"] == [{"name": "accuracy", "value": 0.25, "version": 2, "examples": 5}]
        assert status["evaluatorMetrics"] == [{"name": "accuracy", "value": 0.75, "version": 2, "examples": 40}]
        rounds = (await table.get("/v1/rounds")).json()
        assert [entry["participants"] for entry in rounds] == [["a-0"], ["a-0"]]
        assert [entry["evaluatorMetrics"][0]["value"] for entry in rounds] == [0.6, 0.75]
        models = (await table.get("/v1/models")).json()
        assert [entry["evaluatorMetrics"][0]["value"] for entry in models] == [0.5, 0.6, 0.75]
        text = (await table.get("/metrics")).text
        assert 'metisfl_model_metric{federation="test",metric="accuracy",source="Evaluators"} 0.75' in text
        assert 'metisfl_model_metric{federation="test",metric="accuracy",source="Learners"} 0.25' in text
    # And all of it again from the store.
    async with served(learnerGroups=GROUPS, termination=termination) as table:
        assert (await table.status())["evaluatorMetrics"] == status["evaluatorMetrics"]


async def test_an_evaluator_cannot_smuggle_an_update_in(served: Served) -> None:
    async with served(learnerGroups=GROUPS) as table:
        learner, judge = table.player("a-0"), table.player("judge-0")
        await judge.enter()
        await learner.enter()
        await learner.delivers(await learner.task("INITIALISE"))
        task = await judge.task("EVALUATE")
        forged = pb.Task(task_id=task.task_id.replace("/evaluate/", "/train/"), kind=pb.TASK_KIND_TRAIN)
        assert (await judge.upload(forged)).outcome == pb.OUTCOME_LATE
        assert (await table.status())["round"]["participants"] == 1


async def test_the_version_that_evaluators_found_good_enough_is_published(served: Served) -> None:
    termination = {"maxRounds": 9, "targetMetric": {"name": "accuracy", "atLeast": "0.9", "source": "Evaluators"}}
    async with served(learnerGroups=GROUPS, termination=termination) as table:
        learner, judge = table.player("a-0"), table.player("judge-0")
        await judge.enter()
        await learner.enter()
        await learner.delivers(await learner.task("INITIALISE"))
        task = await judge.task("EVALUATE")
        train = await learner.task("TRAIN")
        await learner.evaluate(train, accuracy=0.25)
        await learner.delivers(train)
        await learner.task("TRAIN")
        # Version 1 is there, and version 0 turns out to be good enough.
        await judge.evaluate(task, accuracy=0.95)
        await learner.task("DISCARD")
        await learner.task("STOP")
        status = await table.status()
        assert (status["reason"], status["globalModel"]["version"]) == ("TargetMetricReached", 0)
        assert status["message"] == "version 0 reached evaluators' accuracy ≥ 0.9: 0.95"
        assert (await table.get("/v1/models/latest")).headers["X-Metisfl-Version"] == "0"

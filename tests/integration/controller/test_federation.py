"""A whole federation through the real process, held against float64 arithmetic."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import load

ROUNDS = 3
EXAMPLES = {"a-0": 30, "a-1": 50, "b-0": 7}


def initial() -> dict[str, np.ndarray]:
    """Sixteenths, so that sums are exact in float64 and the oracle is exact to the bit; more than one chunk."""
    rng = np.random.default_rng(1)
    return {
        "w": (rng.integers(-64, 64, (600, 700)) / 16).astype(np.float32),
        "wide": rng.integers(-64, 64, 5) / 16,
        "steps": np.array(2),
        "half": np.array([0.5, -0.25, 2], np.float16),
        "mask": np.array([True, False, True]),
        "none": np.zeros((0, 3), np.float32),
    }


def trained(model: dict[str, np.ndarray], learner: str, version: int) -> dict[str, np.ndarray]:
    """What this learner makes of a version; all steps are sixteenths."""
    step = (version + 1) * (1 + len(learner) + int(learner[-1]) + ord(learner[0]) % 3)
    return {
        "w": np.round((model["w"] + np.float32(step / 16)) * 16) / np.float32(16),
        "wide": np.round((model["wide"] - step / 16) * 16) / 16,
        "steps": model["steps"] + step,
        "half": (model["half"] + np.float16(step / 16)).astype(np.float16),
        "mask": model["mask"] ^ (step % 2 == 0),
        "none": model["none"],
    }


def fed_avg(models: list[dict[str, np.ndarray]], examples: list[int]) -> dict[str, np.ndarray]:
    """Σ n·w / Σ n in float64, each tensor back in its own dtype: the definition, without any of the product's code."""
    total = float(sum(examples))
    mean = {}
    for name, like in models[0].items():
        value = sum(n * model[name].astype(np.float64) for n, model in zip(examples, models, strict=True)) / total
        if like.dtype == np.bool_:
            mean[name] = value > 0.5
        else:
            mean[name] = np.asarray(np.rint(value) if like.dtype.kind == "i" else value).astype(like.dtype)
    return mean


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


async def test_a_federation_is_fed_avg_to_the_bit(controller: Callable[..., Any]) -> None:
    process = controller(
        learnerGroups=[{"name": "a", "replicas": 2}, {"name": "b", "replicas": 1, "parameters": {"data": "mine"}}],
        termination={"maxRounds": ROUNDS},
        training={"epochs": 2, "batchSize": 16, "learningRate": "0.125"},
    )
    table = await process.start()
    models: dict[int, dict[str, np.ndarray]] = {0: initial()}
    players = [table.player(name, initial(), frozen=["steps", "mask"]) for name in EXAMPLES]

    async def learner(player: Any) -> None:
        joined = await player.join()
        assert (joined.learner_id, joined.federation) == (player.id, "test")
        assert (joined.partition.index, joined.partition.count) == (list(EXAMPLES).index(player.id), 3)
        assert dict(joined.parameters) == {"data": "mine" if player.group == "b" else "digits"}
        await player.open()
        if player.id == "a-0":
            await player.delivers(await player.task("INITIALISE"), models[0])
        for version in range(ROUNDS):
            task = await player.task("TRAIN")
            assert (task.round, task.model_version, task.evaluate) == (version + 1, version, True)
            assert (task.training.epochs, task.training.batch_size, task.training.learning_rate) == (2, 16, 0.125)
            assert 0 < task.deadline_seconds <= 600
            model = await player.model(version)
            assert_same(model, models[version])
            await player.evaluate(task, EXAMPLES[player.id], accuracy=0.25 * int(player.id == "a-0"))
            models.setdefault(
                version + 1,
                fed_avg([trained(model, name, version) for name in EXAMPLES], list(EXAMPLES.values())),
            )
            await player.delivers(task, trained(model, player.id, version), examples=EXAMPLES[player.id])
        task = await player.task("EVALUATE")
        assert_same(await player.model(ROUNDS), models[ROUNDS])
        await player.evaluate(task, EXAMPLES[player.id], accuracy=1.0)
        stop = await player.task("STOP")
        assert stop.reason.startswith("Complete: ")

    await asyncio.gather(*map(learner, players))

    status = await table.status()
    assert (status["state"], status["reason"]) == ("Complete", "MaxRoundsReached")
    assert (status["committedRounds"], status["currentRound"], status["maxRounds"]) == (ROUNDS, ROUNDS, ROUNDS)
    assert status["globalModel"]["version"] == ROUNDS
    assert status["metrics"] == [{"name": "accuracy", "value": 1.0, "version": ROUNDS, "examples": 87}]
    assert {x["id"]: x["contributions"] for x in status["learners"]} == dict.fromkeys(EXAMPLES, ROUNDS)

    rounds = (await table.get("/v1/rounds")).json()
    assert [r["number"] for r in rounds] == [1, 2, 3]
    assert (await table.get("/v1/rounds?limit=2")).json() == rounds[:2]
    assert (await table.get("/v1/rounds?after=2&limit=2")).json() == rounds[2:]
    assert (await table.get("/v1/rounds?limit=0")).status_code == 422
    nbytes = players[0].layout.nbytes
    for record in rounds:
        assert record["contributors"] == record["participants"] == sorted(EXAMPLES)
        assert (record["lost"], record["attempts"], record["trainMetrics"]) == ([], 1, {"loss": 0.5})
        assert record["bytesReceived"] == record["bytesSent"] == 3 * nbytes
        assert sum(record["phaseSeconds"].values()) > 0
    assert rounds[0]["metrics"][0]["value"] == 0.25 * 30 / 87

    response = await table.get("/v1/models/latest")
    assert_same(load(response.content), models[ROUNDS])
    assert response.headers["X-Metisfl-Version"] == str(ROUNDS)
    assert response.headers["X-Metisfl-Sha256"] == hashlib.sha256(response.content).hexdigest()
    kept = (await table.get("/v1/models")).json()
    assert [(m["version"], m["published"]) for m in kept] == [(1, False), (2, False), (3, True)]
    assert_same(load((await table.get("/v1/models/1")).content), models[1])

    text = (await table.get("/metrics")).text
    for line in (
        'metisfl_rounds_committed_total{federation="test"} 3.0',
        'metisfl_uploads_total{federation="test",outcome="accepted"} 10.0',
        'metisfl_model_metric{federation="test",metric="accuracy",source="Learners"} 1.0',
    ):
        assert line in text
    received = re.search(r'metisfl_transfer_bytes_total{direction="received",federation="test"} (\S+)', text)
    assert received is not None
    assert float(received[1]) == 10 * nbytes

    # A finished federation stays what it is over a restart, and tells latecomers to stop.
    completed = status["completionTime"]
    assert await process.stop() == 0
    table = await process.start()
    late = table.player("a-0", initial(), frozen=["steps", "mask"])
    await late.enter()
    assert (await late.task("STOP")).reason.startswith("Complete: ")
    again = await table.status()
    assert (again["state"], again["reason"], again["completionTime"]) == ("Complete", "MaxRoundsReached", completed)
    assert again["incarnation"] == 2
    assert again["metrics"] == status["metrics"]
    assert_same(load((await table.get("/v1/models/latest")).content), models[ROUNDS])
    assert await process.stop() == 0


async def test_rest_answers_before_anything_has_happened(served: Callable[..., Any]) -> None:
    async with served() as table:
        for path in ("/healthz", "/readyz"):
            assert (await table.get(path)).text == "ok"
        status = await table.status()
        assert (status["state"], status["reason"]) == ("WaitingForLearners", "LearnersMissing")
        assert status["message"] == "0 of at least 2 learners are ready"
        assert (status["learners"], status["desiredLearners"], status["globalModel"]) == ([], 2, None)
        assert (await table.get("/v1/rounds")).json() == (await table.get("/v1/models")).json() == []
        missing = await table.get("/v1/models/latest")
        assert (missing.status_code, missing.json()["detail"]) == (404, "no model version has been committed yet")


async def test_rest_names_what_it_does_not_have(served: Callable[..., Any]) -> None:
    async with served(learnerGroups=[{"name": "a", "replicas": 1}]) as table:
        player = table.player("a-0")
        await player.enter()
        await player.delivers(await player.task("INITIALISE"))
        await player.task("TRAIN")
        for version, status, words in (
            ("7", 404, "version 7 is not kept; stored versions: 0"),
            ("newest", 422, "'newest' is not a version"),
            ("²", 422, "'²' is not a version"),
            ("9" * 21, 422, "at most 20 characters"),
            ("..%2Fhistory.sqlite", 404, "Not Found"),
        ):
            response = await table.get(f"/v1/models/{version}")
            assert response.status_code == status, version
            assert words in response.text
        assert (await table.get("/v1/models/0")).status_code == 200

"""Robust rules in the whole service: attackers among learners that the test plays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from metisfl.proto.v1 import controller_pb2 as pb

RULES = ("Median", "TrimmedMean", "Krum", "MultiKrum", "Bulyan", "GeometricMedian", "CenteredClip")
LEARNERS = 7
ATTACKER = "a-3"
ALWAYS = {("Bulyan", "Float32"), ("CenteredClip", "Int8")}


def initial() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"w": rng.standard_normal((30, 40)).astype(np.float32), "steps": np.array(2)}


def trained(model: dict[str, np.ndarray], learner: str, version: int) -> dict[str, np.ndarray]:
    """Everybody goes from `w` towards w + 1, but for the attacker, who goes far the other way."""
    change = 1 + np.random.default_rng([version, int(learner[-1])]).standard_normal(model["w"].shape) / 8
    if learner == ATTACKER:
        return {"w": (model["w"] - 1000 * change).astype(np.float32), "steps": model["steps"] + 10**6}
    return {"w": (model["w"] + change).astype(np.float32), "steps": model["steps"] + 1}


@pytest.mark.parametrize(
    ("rule", "codec"),
    [
        pytest.param(rule, codec, marks=() if (rule, codec) in ALWAYS else pytest.mark.slow)
        for rule in RULES
        for codec in ("Float32", "Int8")
    ],
)
async def test_an_attacker_has_no_say(served: Callable[..., Any], rule: str, codec: str) -> None:
    spec = {
        "learnerGroups": [{"name": "a", "replicas": LEARNERS}],
        "aggregation": {"rule": rule},
        "transport": {"codec": codec},
        "evaluation": {"everyRounds": 100},
        "termination": {"maxRounds": 100},
    }
    async with served(**spec) as table:
        players = [table.player(f"a-{k}", arrays=initial()) for k in range(LEARNERS)]
        for player in players:
            await player.enter()
        await players[0].delivers(await players[0].task("INITIALISE"))
        for version in range(2):
            for player in players:
                task = await player.task("TRAIN")
                model = await player.model(version)
                examples = 10**6 if player.id == ATTACKER and rule != "GeometricMedian" else 10
                await player.delivers(
                    task, trained(model, player.id, version), report=pb.TrainingReport(examples=examples, batches=1)
                )
            await table.until_status(lambda status, done=version + 1: status["committedRounds"] == done)
        final = load((await table.get("/v1/models/2")).content)
    moved = final["w"] - initial()["w"]
    assert 1.9 < moved.mean() < 2.1
    assert (np.abs(moved - 2) < 1.5).all()
    assert final["steps"] == 4

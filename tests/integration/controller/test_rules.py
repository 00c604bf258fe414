"""Aggregation rules and server optimisers in the whole service, with learners in the hands of the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from metisfl.proto.v1 import controller_pb2 as pb

LEARNERS = ("a-0", "a-1", "a-2")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Momentum": {"type": "Momentum", "learningRate": "0.5"},
    "Adam": {"type": "Adam"},
    "Yogi": {"type": "Yogi"},
    "Adagrad": {"type": "Adagrad"},
}
RULES: dict[str, dict[str, Any]] = {
    "FedAvg": {"rule": "FedAvg"},
    "FedStride": {"rule": "FedStride", "fedStride": {"models": 2}},
    "FedNova": {"rule": "FedNova"},
    "FedRec": {"rule": "FedRec"},
    "clipped": {"rule": "FedAvg", "clipNorm": "0.5"},
    **{name: {"serverOptimizer": optimizer} for name, optimizer in OPTIMIZERS.items()},
}


ALWAYS = ("Adam", "FedRec")


def initial() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"w": rng.standard_normal((30, 40)).astype(np.float32), "steps": np.array(2)}


def trained(model: dict[str, np.ndarray], learner: str, version: int) -> dict[str, np.ndarray]:
    """What this learner makes of a version, the same in every run."""
    rng = np.random.default_rng([version, int(learner[-1])])
    change = rng.standard_normal(model["w"].shape).astype(np.float32) / 8
    return {"w": model["w"] + change, "steps": model["steps"] + version}


async def go_on(served: Callable[..., Any], state: Path, start: int, rounds: int, **aggregation: Any) -> Any:
    """Start the service on a state directory that stands at version `start`, let all learners train `rounds` rounds,
    and return the last model."""
    spec = {
        "learnerGroups": [{"name": "a", "replicas": len(LEARNERS)}],
        "aggregation": {"deterministic": True, **aggregation},
        "evaluation": {"everyRounds": 100},
        "termination": {"maxRounds": 100},
    }
    # Of an archive, it is another federation's.
    settings = {"METISFL_STATE_DIR": str(state), "METISFL_ADOPT_STATE": "true"}
    async with served(settings=settings, **spec) as table:
        players = [table.player(name, arrays=initial()) for name in LEARNERS]
        for player in players:
            await player.enter()
        if not start:
            await players[0].delivers(await players[0].task("INITIALISE"))
        for version in range(start, start + rounds):
            for player in players:
                task = await player.task("TRAIN")
                model = await player.model(version)
                report = pb.TrainingReport(examples=10 + 10 * player.ordinal, batches=1 + player.ordinal)
                await player.delivers(task, trained(model, player.id, version), report=report)
            await table.until_status(lambda status, done=version + 1: status["committedRounds"] == done)
        return load((await table.get(f"/v1/models/{start + rounds}")).content)


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in RULES]
)
async def test_six_rounds_are_three_a_restart_and_three(served: Callable[..., Any], tmp_path: Path, name: str) -> None:
    through = await go_on(served, tmp_path / "through", 0, 6, **RULES[name])
    half = await go_on(served, tmp_path / "restarted", 0, 3, **RULES[name])
    restarted = await go_on(served, tmp_path / "restarted", 3, 3, **RULES[name])
    assert np.abs(through["w"] - half["w"]).max() > 0.01
    for tensor, array in through.items():
        np.testing.assert_array_equal(restarted[tensor], array)
    mean_of_steps = sum((10, 20, 30)[k] * 1 for k in range(3)) / 60
    assert through["steps"] == 2 + sum(range(6)) * mean_of_steps

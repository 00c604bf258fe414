"""Every protocol with every aggregation rule: what is compatible completes, what is not is refused with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import product
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
import pytest

from metisfl.api import FederationState
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.spec import SpecError, parse_federation
from metisfl.spec.aggregation import AggregationRule
from metisfl.spec.server_optimizer import ServerOptimizerType
from tests.integration.controller.conftest import WAIT_SECONDS, Player, federation

T = TypeVar("T")

LEARNERS = 7  # what Bulyan needs against one attacker
ROUNDS = 2

PROTOCOLS: dict[str, dict[str, Any]] = {
    "Synchronous": {"type": "Synchronous"},
    "SemiSynchronous": {"type": "SemiSynchronous"},
    "Asynchronous": {"type": "Asynchronous"},
    "Asynchronous, buffered": {"type": "Asynchronous", "asynchronous": {"bufferSize": 3}},
}
RULES: dict[str, dict[str, Any]] = {
    **{rule.value: {"rule": rule.value} for rule in AggregationRule},
    **{
        f"FedAvg, {optimizer.value}": {"serverOptimizer": {"type": optimizer.value}}
        for optimizer in ServerOptimizerType
        if optimizer is not ServerOptimizerType.NONE
    },
    "FedNova, Momentum, clipped": {"rule": "FedNova", "serverOptimizer": {"type": "Momentum"}, "clipNorm": "1"},
    "FedRec, Adam, clipped": {"rule": "FedRec", "serverOptimizer": {"type": "Adam"}, "clipNorm": "1"},
}


def spec_of(protocol: str, rule: str) -> dict[str, Any]:
    return {
        "learnerGroups": [{"name": "a", "replicas": LEARNERS}],
        "protocol": PROTOCOLS[protocol],
        "aggregation": RULES[rule],
        "termination": {"maxRounds": ROUNDS},
    }


def refusal(protocol: str, rule: str) -> str:
    """Why a pair is incompatible, empty when it is not."""
    try:
        parse_federation(federation(**spec_of(protocol, rule)))
    except SpecError as error:
        return str(error)
    return ""


PAIRS = list(product(PROTOCOLS, RULES))
COMPATIBLE = [pair for pair in PAIRS if not refusal(*pair)]
DIAGONAL = [
    next(pair for pair in COMPATIBLE if pair[1] == rule and pair[0] == protocol)
    for protocol, rule in (
        ("Synchronous", "FedNova"),
        ("SemiSynchronous", "FedStride"),
        ("Asynchronous", "FedRec, Adam, clipped"),
        ("Asynchronous, buffered", "FedNova, Momentum, clipped"),
    )
]


async def persistently(attempt: Callable[[], Awaitable[T]]) -> T:
    """As learners do with transfers: a version may have to be read back from its file in mid-download, and the verdict
    may come while an upload is still being written, which gRPC takes for an error of its own."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                return await attempt()
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
                    raise


async def work(player: Player) -> None:
    """Do what is asked until told to stop."""
    rng = np.random.default_rng(player.ordinal)
    while True:
        task = await player.receive()
        match task.kind:
            case pb.TASK_KIND_INITIALISE:
                await player.delivers(task)
            case pb.TASK_KIND_TRAIN:
                model = await persistently(partial(player.model, task.model_version))
                if task.evaluate:
                    await player.evaluate(task, accuracy=0.5)
                change = rng.standard_normal(model["w"].shape).astype(np.float32)
                report = pb.TrainingReport(examples=10 + player.ordinal, batches=1 + player.ordinal, seconds=0.01)
                trained = {**model, "w": model["w"] + change}
                await persistently(partial(player.upload, task, trained, report=report))
            case pb.TASK_KIND_EVALUATE:
                await persistently(partial(player.model, task.model_version))
                await player.evaluate(task, accuracy=0.5)
            case pb.TASK_KIND_STOP:
                return


@pytest.mark.parametrize(
    ("protocol", "rule"),
    [pair if pair in DIAGONAL else pytest.param(*pair, marks=pytest.mark.slow) for pair in COMPATIBLE],
)
async def test_compatible_pairs_complete(served: Callable[..., Any], protocol: str, rule: str) -> None:
    async with served(**spec_of(protocol, rule)) as table:
        players = [table.player(f"a-{number}") for number in range(LEARNERS)]
        for player in players:
            await player.enter()
        async with asyncio.TaskGroup() as group:
            for player in players:
                group.create_task(work(player))
        status = await table.status()
        assert (status["state"], status["committedRounds"]) == (FederationState.COMPLETE, ROUNDS)
        model = (await table.get("/v1/models/latest")).content
        assert len(model) > 0


@pytest.mark.parametrize(("protocol", "rule"), [pair for pair in PAIRS if pair not in COMPATIBLE])
def test_incompatible_pairs_are_refused_with_the_reason(protocol: str, rule: str) -> None:
    assert PROTOCOLS[protocol]["type"] in refusal(protocol, rule)

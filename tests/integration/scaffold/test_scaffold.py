"""SCAFFOLD whole: a real controller and real learner sessions, against a simulation in float64."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from metisfl.logs import logger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.limits import PROTOCOL_VERSION
from metisfl.wire.transport import Transport, supported_codecs
from metisfl_controller import kernel_cache
from metisfl_learner import Evaluation, LearnerContext, PartitionPlace, Weights
from metisfl_learner.adapters.numpy import NumpyLearner
from metisfl_learner.client import ControllerClient
from metisfl_learner.session import Session
from metisfl_learner.work import prepare
from metisfl_learner.worker import Worker

kernel_cache.prepare(os.environ)

SECONDS = 100.0
RATE, EPOCHS, SITES = 0.3, 3, 3
FORGETS_IN = 5
CENTRES = np.array([[4.0, 0.0], [0.0, 2.0], [-1.0, -5.0]])
STIFFNESS = np.array([[1.0, 0.2], [0.1, 1.5], [0.6, 0.6]])
START = np.array([1.0, 1.0])


class Bowl(NumpyLearner):
    """f_i(w) = Σ_j h_ij / 2 · (w_j − a_ij)², whatever the batch: so local steps drift to a_i, each learner's own."""

    def __init__(self, context: LearnerContext) -> None:
        one = (np.zeros(1), np.zeros(1))
        super().__init__(context, {"w": START.astype(np.float32)}, one, one)
        self.index = context.partition.index

    def gradient(self, weights: Mapping[str, Any], inputs: Any, targets: Any) -> Mapping[str, Any]:
        return {"w": STIFFNESS[self.index] * (weights["w"] - CENTRES[self.index])}

    def measure(self, weights: Weights, inputs: Any, targets: Any) -> Mapping[str, float]:
        return {"loss": 0.0}


class Forgetful(Bowl):
    """Site 1 loses its state directory just before it trains in one of the rounds."""

    evaluations = 0

    def evaluate(self, weights: Weights) -> Evaluation:
        self.evaluations += 1
        if self.index == 1 and self.evaluations == FORGETS_IN:
            assert self.context.state_dir is not None
            shutil.rmtree(self.context.state_dir)
        return super().evaluate(weights)


def simulate(rounds: int, forgets: Mapping[int, int] | None = None) -> list[Any]:
    """Models after each round. `forgets`: in round r this learner has lost its variate, after which all begin anew."""
    x, c, own, models = START.copy(), np.zeros(2), np.zeros((SITES, 2)), []
    for number in range(1, rounds + 1):
        broken = (forgets or {}).get(number)
        if broken is not None:
            own[broken] = 0
        ends, afters = [], []
        for site in range(SITES):
            y = x.copy()
            for _ in range(EPOCHS):
                y -= RATE * (STIFFNESS[site] * (y - CENTRES[site]) - own[site] + c)
            ends.append(y)
            afters.append(own[site] - c + (x - y) / (EPOCHS * RATE))
        x = np.mean(ends, axis=0)
        c = c + (np.array(afters) - own).mean(axis=0)
        own = np.array(afters)
        if broken is not None:
            c, own = np.zeros(2), np.zeros((SITES, 2))
        models.append(x.copy())
    return models


def federation(rounds: int) -> dict[str, Any]:
    return {
        "apiVersion": "metisfl.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": "bowls"},
        "spec": {
            "learner": {"entrypoint": "any:Class"},
            "learnerGroups": [{"name": "site", "replicas": SITES}],
            "training": {"epochs": EPOCHS, "batchSize": 1, "learningRate": str(RATE)},
            "aggregation": {"rule": "Scaffold"},
            "termination": {"maxRounds": rounds},
            "security": {"tls": {"mode": "Disabled"}},
        },
    }


@asynccontextmanager
async def controller(folder: Path, rounds: int) -> AsyncIterator[str]:
    from metisfl_controller.service import serve
    from metisfl_controller.settings import Settings

    (folder / "federation.json").write_text(json.dumps(federation(rounds)))
    endpoints, stop = folder / "endpoints.json", asyncio.Event()
    endpoints.unlink(missing_ok=True)
    settings = Settings.parse(
        {
            "METISFL_FEDERATION_FILE": str(folder / "federation.json"),
            "METISFL_STATE_DIR": str(folder / "state"),
            "METISFL_GRPC_ADDRESS": "127.0.0.1:0",
            "METISFL_HTTP_ADDRESS": "127.0.0.1:0",
            "METISFL_ENDPOINT_FILE": str(endpoints),
        }
    )
    service = asyncio.create_task(serve(settings, logger("controller"), stop))
    async with asyncio.timeout(SECONDS):
        while not endpoints.exists():
            assert not service.done(), service.result()
            await asyncio.sleep(0.01)
    try:
        yield json.loads(endpoints.read_text())["grpc"]
    finally:
        stop.set()
        await asyncio.wait_for(service, SECONDS)


async def learn(address: str, ordinal: int, learner_class: type[Bowl], folder: Path) -> None:
    """One learner until STOP."""
    log = logger("learner")

    def make(terms: pb.JoinResponse) -> Any:
        place = PartitionPlace(terms.partition.index, terms.partition.count)
        context = LearnerContext(terms.learner_id, terms.federation, {}, place, folder / str(ordinal), log)
        return prepare("test:Bowl", learner_class, context, Transport.of(terms), terms.federation_uid)

    async with ControllerClient(address) as client:
        request = pb.JoinRequest(
            protocol_version=PROTOCOL_VERSION,
            group="site",
            ordinal=ordinal,
            codecs=supported_codecs(),
            capabilities=pb.Capability.values(),
        )
        await asyncio.wait_for(Session(client, request, make, Worker(), SECONDS, log).run(), SECONDS)


async def federate(folder: Path, rounds: int, learner_class: type[Bowl] = Bowl) -> list[Any]:
    """The models that the controller has committed, version 1 on, as far as they are kept."""
    async with controller(folder, rounds) as address:
        state = folder / "learners"
        await asyncio.gather(*(learn(address, ordinal, learner_class, state) for ordinal in range(SITES)))
    files = sorted((folder / "state" / "models").glob("v??????.safetensors"))
    return [load_file(path)["w"].astype(float) for path in files]


async def test_the_federation_does_what_the_paper_says(tmp_path: Path) -> None:
    rounds = 12
    models = await federate(tmp_path, rounds)
    expected = simulate(rounds)
    for got, wanted in zip(models, expected[-len(models) :], strict=True):
        assert got == pytest.approx(wanted, abs=2e-5)
    # Where FedAvg's local steps would have led it: away from the optimum of the sum.
    optimum = (STIFFNESS * CENTRES).sum(axis=0) / STIFFNESS.sum(axis=0)
    factor = 1 - (1 - RATE * STIFFNESS) ** EPOCHS
    drifted = (factor * CENTRES).sum(axis=0) / factor.sum(axis=0)
    assert np.abs(models[-1] - optimum).max() < 0.1 * np.abs(drifted - optimum).max()


async def test_when_a_learner_lost_its_state_all_begin_anew_and_go_on_as_the_paper_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = 8
    models = await federate(tmp_path, rounds, Forgetful)
    assert "those of site-1 are not the ones that the global one is made of" in caplog.text
    for got, wanted in zip(models, simulate(rounds, {FORGETS_IN: 1})[-len(models) :], strict=True):
        assert got == pytest.approx(wanted, abs=2e-5)

"""The operator's release: what it tells of itself, and that federations do not mind its removal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}
ENDLESS = {"maxRounds": 100_000}


def test_operator_and_controllers_can_be_scraped(lab: Any, run: Run, example: Example) -> None:
    name = run(example("breast-cancer", "measured", termination={"maxRounds": 1}))
    lab.until_complete(name)
    (operator,) = lab.kubectl("get", "pods", "-n", "metisfl-system", "-o", "name").split()
    told = scrape(lab, "metisfl-system", operator.removeprefix("pod/"), 8082)
    assert told["metisfl_operator_watch_lag_seconds"] == 0
    assert told['metisfl_operator_federations{state="complete"}'] >= 1
    assert told['metisfl_operator_reconciles_total{result="success"}'] >= 1
    assert any(sample.startswith("metisfl_") for sample in scrape(lab, lab.namespace, f"{name}-controller-0", 8080))


@pytest.mark.slow
def test_federations_outlive_their_operators_removal(operator: Any, lab: Any, run: Run, example: Example) -> None:
    name = run(example("digits", "outliving", training=STEADY, termination=ENDLESS))
    lab.until("two rounds", lambda: lab.status(name).get("currentRound", 0) >= 2)
    before = uids(lab)
    operator.uninstall()
    try:
        told, reached = lab.status(name), lab.controller(name).current_round
        lab.until("rounds go on", lambda: lab.controller(name).current_round > reached + 1)
        assert lab.status(name) == told, "nobody tells of them"
        run(example("breast-cancer", "early"))
    finally:
        operator.install()
    lab.until_complete("early")
    lab.until("the new operator tells of progress", lambda: lab.status(name)["currentRound"] > reached)
    assert before.items() <= uids(lab).items()


def scrape(lab: Any, namespace: str, pod: str, port: int) -> dict[str, float]:
    text = lab.kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics")
    samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {sample: float(value) for sample, value in samples}


def uids(lab: Any) -> dict[str, str]:
    """Of the federation's pods that run, by name."""
    columns = "custom-columns=:.metadata.name,:.metadata.uid"
    table = lab.kubectl(
        "get", "pods", "-n", lab.namespace, "-l", "metisfl.dev/federation=outliving", "--no-headers", "-o", columns
    )
    return dict(line.split() for line in table.splitlines())

"""The operator's release is changed, restricted and removed, and federations do not mind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}
ENDLESS = {"maxRounds": 100_000}
RIGHTS = "roles,rolebindings,clusterroles,clusterrolebindings"


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
def test_one_that_serves_a_namespace_has_rights_there_alone(
    operator: Any, lab: Any, other_lab: Any, example: Example
) -> None:
    operator.upgrade(namespaces=[lab.namespace])
    try:
        rights = lab.kubectl("get", RIGHTS, "-A", "-l", "app.kubernetes.io/instance=metisfl", "-o", "name").split()
        by_kind = {right.partition(".")[0] for right in rights}
        assert {"role", "rolebinding"} <= by_kind
        assert "clusterrolebinding" not in by_kind
        account = "--as=system:serviceaccount:metisfl-system:metisfl"
        assert can(lab, "create", "statefulsets", account, "-n", lab.namespace) == "yes"
        assert can(lab, "create", "statefulsets", account, "-n", other_lab.namespace) == "no"
        assert can(lab, "list", "federations.metisfl.dev", account, "--all-namespaces") == "no"

        other_lab.apply(example("breast-cancer", "elsewhere"))
        lab.apply(example("breast-cancer", "served"))
        lab.until_complete("served")
        assert other_lab.status("elsewhere") == {}
        lab.delete("served")
    finally:
        operator.upgrade()
    other_lab.until_complete("elsewhere")
    other_lab.delete("elsewhere")


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


def can(lab: Any, verb: str, what: str, *options: str) -> str:
    """`yes` or `no`, which kubectl also says by its exit code."""
    try:
        answer: str = lab.kubectl("auth", "can-i", verb, what, *options)
    except AssertionError as refused:
        answer = str(refused).splitlines()[0].rpartition(":")[2]
    return answer.split()[-1]


def uids(lab: Any) -> dict[str, str]:
    """Of the federation's pods that run, by name."""
    columns = "custom-columns=:.metadata.name,:.metadata.uid"
    table = lab.kubectl(
        "get", "pods", "-n", lab.namespace, "-l", "metisfl.dev/federation=outliving", "--no-headers", "-o", columns
    )
    return dict(line.split() for line in table.splitlines())

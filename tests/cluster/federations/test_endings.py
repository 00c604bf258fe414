"""Quotas, removal at any moment, what stays after the end, and an operator that is replaced meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}


def test_a_quota_that_refuses_pods_is_told_in_the_api_servers_words(other_lab: Any, example: Example) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/statefulsets.apps": "9", "pods": "0"}},
    }
    other_lab.kubectl("apply", "-n", other_lab.namespace, "-f", "-", input=json.dumps(quota))
    try:
        other_lab.apply(example("breast-cancer", "refused"))
        refused = other_lab.until(
            "the refusal is told",
            lambda: (found := other_lab.condition("refused", "Progressing"))[1] == "PodsRejected" and found,
            60,
        )
        assert "exceeded quota: none" in refused[2]
    finally:
        other_lab.kubectl("delete", "quota", "none", "-n", other_lab.namespace)
        other_lab.delete("refused")


@pytest.mark.slow
def test_deletion_at_any_moment_and_the_same_name_again(lab: Any, run: Run, example: Example) -> None:

    def suspended() -> bool:
        lab.edit("again", suspend=True)
        return bool(lab.condition("again", "Suspended")[0] == "True")

    endless = example("digits", "again", training=STEADY, termination={"maxRounds": 100_000})
    moments: dict[str, Callable[[], Any]] = {
        "before anything is made": lambda: True,
        "while pods start": lambda: lab.pods("again"),
        "while it trains": lambda: lab.status("again").get("currentRound", 0) >= 1,
        "while pods go because it is suspended": suspended,
        "after it was suspended": lambda: suspended() and not lab.pods("again"),
    }
    for moment, reached in moments.items():
        run(endless)
        lab.until(moment, reached, 240)
        lab.delete("again")
    # What is left of the last one is waited for, and told.
    run(example("breast-cancer", "again"))
    status = lab.until_complete("again", 300)
    assert status["currentRound"] >= 1
    assert lab.controller("again").incarnation == 1, "an empty volume"


@pytest.mark.slow
def test_after_its_time_only_the_object_and_the_volume_are_left(lab: Any, run: Run, example: Example) -> None:
    name = run(example("breast-cancer", "expiring", ttlSecondsAfterFinished=5))
    lab.until_complete(name)
    lab.until("pods and Service go", lambda: not lab.pods(name) and not kinds(lab, name) & {"pod", "service"}, 120)
    assert "persistentvolumeclaim" in kinds(lab, name)
    assert lab.condition(name, "ControllerAvailable")[1] == "Expired"
    status = lab.status(name)
    assert lab.condition(name, "Complete")[0] == "True"
    assert status["globalModel"]["version"] >= 1


@pytest.mark.slow
def test_an_operator_that_is_replaced_disturbs_nothing(lab: Any, run: Run, example: Example) -> None:
    name = run(example("digits", "undisturbed", training=STEADY, termination={"maxRounds": 40}))
    lab.until("two rounds", lambda: lab.status(name).get("currentRound", 0) >= 2)
    before = [(pod["metadata"]["uid"], restarts(pod)) for pod in pods(lab, name)]
    deployment = ("deployment/metisfl", "-n", "metisfl-system")
    lab.kubectl("rollout", "restart", *deployment)
    lab.kubectl("rollout", "status", *deployment, "--timeout=120s", timeout=130)
    reached = lab.controller(name).current_round
    lab.until("the new operator tells of progress", lambda: lab.status(name)["currentRound"] > reached)
    assert [(pod["metadata"]["uid"], restarts(pod)) for pod in pods(lab, name)] == before


def kinds(lab: Any, name: str) -> set[str]:
    return {entry.partition("/")[0].partition(".")[0] for entry in lab.left(name)}


def pods(lab: Any, name: str) -> list[dict[str, Any]]:
    selector = f"metisfl.dev/federation={name}"
    found = json.loads(lab.kubectl("get", "pods", "-n", lab.namespace, "-l", selector, "-o", "json"))["items"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def restarts(pod: dict[str, Any]) -> int:
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))

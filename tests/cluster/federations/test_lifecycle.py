"""One federation is edited while it runs, deleted with its volume kept, and gone on from by another."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

# Rounds of about a second, and more of them than a test takes.
STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}
ENDLESS = {"maxRounds": 100_000}
GROUP = {
    "name": "silo",
    "replicas": 1,
    "env": [{"name": "SITE", "value": "north"}],
    "podLabels": {"team": "x"},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "initContainers": [],
}


def test_edits_take_effect_without_a_restart_and_a_kept_volume_is_gone_on_from(
    lab: Any, run: Run, example: Example, images: Any
) -> None:
    first = example("digits", "first", training=STEADY, termination=ENDLESS)
    spec = first["spec"]
    spec["learner"]["partitions"] = 3
    spec["selection"] = {"minLearners": 1}
    init = {"name": "first", "image": images["learner"], "command": ["python", "-c", "print('fetched')"]}
    spec["learnerGroups"] = [{**GROUP, "resources": {"requests": {"cpu": "20m"}}, "initContainers": [init]}]
    spec["controller"] = {
        "storage": {"retain": True},
        "protectFromEviction": True,
        "resources": {"requests": {"cpu": "20m"}},
    }
    run(first)
    lab.until("the first round", lambda: lab.status("first").get("currentRound", 0) >= 1)
    learner = pod(lab, "first-silo-0")
    assert learner["metadata"]["labels"]["team"] == "x"
    assert learner["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    budgets = lab.kubectl("get", "pdb,networkpolicy", "-n", lab.namespace, "-o", "name").split()
    assert "poddisruptionbudget.policy/first-controller" in budgets
    assert "networkpolicy.networking.k8s.io/first--learners" in budgets

    # One more learner, and fewer epochs: the controller's pod stays the one it is.
    before = pod(lab, "first-controller-0")["metadata"]["uid"]
    lab.edit("first", learnerGroups=[{**spec["learnerGroups"][0], "replicas": 2}], training={"epochs": 1})
    lab.until("two learners take part", lambda: len(lab.rounds("first")[-1].contributors) == 2)
    assert pod(lab, "first-controller-0")["metadata"]["uid"] == before
    assert lab.controller("first").incarnation == 1

    lab.delete("first")
    lab.until("its pods are gone or going", lambda: not lab.left("first") or going(lab, "first"), 60)
    claim = json.loads(lab.kubectl("get", "pvc", "first-controller", "-n", lab.namespace, "-o", "json"))
    assert claim["metadata"].get("ownerReferences", []) == []

    # The volume is the second federation's now: it ends one round after those it finds.
    second = example("digits", "second", training={**STEADY, "epochs": 1}, termination={"maxRounds": 1})
    second["spec"]["learner"]["partitions"] = 3
    second["spec"]["learnerGroups"] = [GROUP]
    second["spec"]["controller"] = {"storage": {"existingClaim": "first-controller"}}
    run(second)
    status = lab.until_complete("second")
    assert status["currentRound"] > 1, "the rounds of before are there"
    assert lab.controller("second").incarnation == 2
    assert lab.rounds("second")[-1].contributors == ["silo-0", "silo-1"]


def pod(lab: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.kubectl("get", "pod", name, "-n", lab.namespace, "-o", "json"))
    return found


def going(lab: Any, name: str) -> bool:
    """Whether all that is left has been told to go."""
    selector = f"metisfl.dev/federation={name}"
    text = lab.kubectl("get", "pods", "-n", lab.namespace, "-l", selector, "-o", "json")
    return all("deletionTimestamp" in item["metadata"] for item in json.loads(text)["items"])

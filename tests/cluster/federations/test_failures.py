"""What goes wrong is told where its user looks, within a minute; what dies comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metisfl.api import FederationState

Example = Callable[..., dict[str, Any]]

MINUTE = 60
STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}
"""Rounds of about a second: long enough to be hit in the middle."""

DIGITS = "metisfl_learner.examples.digits:DigitsLearner"


def small(name: str, entrypoint: str = DIGITS, *groups: dict[str, Any]) -> dict[str, Any]:
    requests = {"requests": {"cpu": "50m", "memory": "128Mi"}}
    return {
        "apiVersion": "metisfl.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": name},
        "spec": {
            "learner": {"entrypoint": entrypoint},
            "learnerGroups": list(groups) or [{"name": "a", "resources": requests}],
            "controller": {"resources": requests},
        },
    }


@pytest.mark.parametrize(
    ("federation", "reason", "words"),
    [
        (
            small("entry", "metisfl_learner.examples.digits:Nope"),
            "EntrypointInvalid",
            "has no class 'Nope'; the learners in it are DigitsLearner",
        ),
        (
            small("image", DIGITS, {"name": "a", "image": "localhost/metisfl-nothing:here"}),
            "ImagePullFailed",
            "localhost/metisfl-nothing:here",
        ),
        (
            small("shape", DIGITS, {"name": "a"}, {"name": "b", "parameters": {"hidden": "32"}}),
            "LearnerRefused",
            "float32[32, 64], expected float32[64, 64]",
        ),
        (
            small("nowhere", DIGITS, {"name": "a", "nodeSelector": {"no-such": "node"}}),
            "Unschedulable",
            "0/1 nodes are available",
        ),
    ],
    ids=["wrong entrypoint", "wrong image", "other shape", "no node"],
)
def test_what_is_wrong_is_told_within_a_minute(lab: Any, federation: dict[str, Any], reason: str, words: str) -> None:
    name = federation["metadata"]["name"]
    lab.apply(federation)
    lab.until(f"the reason {reason}", lambda: lab.condition(name, "LearnersReady")[1] == reason, MINUTE)
    assert words in lab.condition(name, "LearnersReady")[2]
    told = [event for event in lab.events(name) if event[1] == reason]
    assert [event[0] for event in told] == ["Warning"]
    assert words in told[0][2]
    assert words in lab.kubectl("describe", "mfed", name, "-n", lab.namespace)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("aggregation", {"rule": "Krumm"}, 'spec.aggregation.rule: Unsupported value: "Krumm"'),
        ("protocol", {"synchronous": {"quorumPercent": 101}}, "less than or equal to 100"),
        ("security", {"tls": {"mode": "Auto"}}, 'spec.security.tls.mode: Unsupported value: "Auto"'),
    ],
    ids=["unknown enum", "quorum above 100", "TLS that is not built"],
)
def test_what_the_schema_knows_is_refused_at_once(lab: Any, path: str, value: dict[str, Any], words: str) -> None:
    federation = small("wrong")
    federation["spec"][path] = value
    with pytest.raises(AssertionError, match="is invalid") as refused:
        lab.apply(federation)
    assert words in str(refused.value)


def test_a_rule_across_fields_is_told(lab: Any) -> None:
    """By the API server where it knows CEL, and otherwise by the operator."""
    federation = small("rule")
    federation["spec"]["selection"] = {"minLearners": 2}
    words = "selection.minLearners must not exceed the sum of learnerGroups' replicas"
    refused = ""
    try:
        lab.apply(federation)
    except AssertionError as error:
        refused = str(error)
    if refused:
        assert words in refused
        return
    lab.until("the condition", lambda: lab.condition("rule", "Progressing")[1] == "InvalidSpec", MINUTE)
    assert words in lab.condition("rule", "Progressing")[2]
    assert lab.pods("rule") == []


def test_a_killed_learner_does_not_hang_its_round_and_comes_back(lab: Any, example: Example) -> None:
    lab.apply(example("digits", training=STEADY, termination={"maxRounds": 25}))

    def training() -> bool:
        return (
            lab.condition("digits", "ControllerAvailable")[0] == "True" and lab.controller("digits").round is not None
        )

    lab.until("a round is open", training)
    lab.kill("digits-silo-a-1")
    status = lab.until_complete("digits", 240)
    assert status["currentRound"] == 25
    rounds = lab.rounds("digits")
    without = [r.number for r in rounds if "silo-a-1" not in r.contributors]
    after = [r.number for r in rounds if "silo-a-1" in r.contributors and without and r.number > without[0]]
    assert without, "the round went on with its quorum"
    assert after, "and the learner took part again"
    assert [r.number for r in rounds] == list(range(1, 26))


def test_a_killed_controller_goes_on_where_it_was(lab: Any, example: Example) -> None:
    lab.apply(example("digits", training=STEADY, termination={"maxRounds": 15}))
    lab.until("three rounds", lambda: lab.status("digits").get("currentRound", 0) >= 3)
    lab.kill("digits-controller-0")
    status = lab.until_complete("digits", 300)
    assert status["currentRound"] == 15
    assert lab.controller("digits").incarnation == 2
    assert [r.number for r in lab.rounds("digits")] == list(range(1, 16))


def test_suspend_and_resume_keep_what_was_trained(lab: Any, example: Example) -> None:
    lab.apply(example("digits", training=STEADY, termination={"maxRounds": 15}))
    lab.until("two rounds", lambda: lab.status("digits").get("currentRound", 0) >= 2)
    lab.edit("digits", suspend=True)
    lab.until("no pod is left", lambda: lab.pods("digits") == [], 120)
    assert lab.condition("digits", "Suspended")[0] == "True"
    reached = lab.status("digits")["currentRound"]
    lab.edit("digits", suspend=False)
    lab.until_complete("digits", 300)
    document = lab.controller("digits")
    assert document.state is FederationState.COMPLETE
    assert document.committed_rounds == 15
    assert [r.number for r in lab.rounds("digits")] == list(range(1, 16))
    assert reached >= 2


def test_deletion_needs_no_operator(lab: Any) -> None:
    deployment = ("deployment/metisfl", "-n", "metisfl-system")
    lab.apply(small("orphan"))
    lab.until("the pods", lambda: len(lab.pods("orphan")) == 2)
    lab.kubectl("scale", *deployment, "--replicas=0")
    try:
        lab.until("the operator is down", lambda: not _operator_pods(lab), 60)
        assert lab.federation("orphan")["metadata"].get("finalizers", []) == []
        lab.delete("orphan")
        lab.until("nothing is left", lambda: not lab.left("orphan"), 90)
    finally:
        lab.kubectl("scale", *deployment, "--replicas=1")
        lab.kubectl("rollout", "status", *deployment, "--timeout=90s", timeout=100)


def _operator_pods(lab: Any) -> str:
    pods: str = lab.kubectl("get", "pods", "-n", "metisfl-system", "-o", "name")
    return pods.strip()

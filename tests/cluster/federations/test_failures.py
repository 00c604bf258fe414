"""What goes wrong is told where its user looks, within a minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[[dict[str, Any]], str]

MINUTE = 60
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


def without_code(name: str) -> dict[str, Any]:
    """Its learners' code is in a ConfigMap that is not there."""
    federation = small(name)
    federation["spec"]["learner"]["sourceRef"] = {"name": "nothing"}
    return federation


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
        pytest.param(
            small("nowhere", DIGITS, {"name": "a", "nodeSelector": {"no-such": "node"}}),
            "Unschedulable",
            "nodes are available",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            without_code("code"), "VolumeUnavailable", 'configmap "nothing" not found', marks=pytest.mark.slow
        ),
    ],
    ids=["wrong entrypoint", "wrong image", "other shape", "no node", "no such code"],
)
def test_what_is_wrong_is_told_within_a_minute(
    lab: Any, run: Run, federation: dict[str, Any], reason: str, words: str
) -> None:
    name = run(federation)
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
        ("security", {"tls": {"mode": "Never"}}, 'spec.security.tls.mode: Unsupported value: "Never"'),
    ],
    ids=["unknown enum", "quorum above 100", "TLS that is not built"],
)
def test_what_the_schema_knows_is_refused_at_once(lab: Any, path: str, value: dict[str, Any], words: str) -> None:
    federation = small("wrong")
    federation["spec"][path] = value
    with pytest.raises(AssertionError, match="is invalid") as refused:
        lab.apply(federation)
    assert words in str(refused.value)


def test_a_rule_across_fields_is_told(lab: Any, run: Run) -> None:
    """By the API server where it knows CEL, and otherwise by the operator."""
    federation = small("rule")
    federation["spec"]["selection"] = {"minLearners": 2}
    words = "selection.minLearners must not exceed the sum of learnerGroups' replicas"
    refused = ""
    try:
        run(federation)
    except AssertionError as error:
        refused = str(error)
    if refused:
        assert words in refused
        return
    lab.until("the condition", lambda: lab.condition("rule", "Progressing")[1] == "InvalidSpec", MINUTE)
    assert words in lab.condition("rule", "Progressing")[2]
    assert lab.pods("rule") == []

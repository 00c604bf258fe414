"""Twenty federations at once on one node: every one ends, none gets another's learners, the operator keeps up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

MANY = 20
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}}


@pytest.mark.slow
@pytest.mark.timeout(1800, func_only=True)
def test_twenty_federations_at_once(lab: Any, run: Run, example: Example) -> None:
    """Kernels are compiled in the image, so that twenty controllers start without a compiler each."""
    began = time.monotonic()
    names = [
        run(
            example(
                "breast-cancer",
                f"many-{number}",
                learner={"entrypoint": "metisfl_learner.examples.breast_cancer:BreastCancerLearner"},
                learnerGroups=[{"name": "site", "replicas": 1 + number % 2, "resources": SMALL}],
                controller={"resources": SMALL},
                termination={"maxRounds": 3},
            )
        )
        for number in range(MANY)
    ]
    for name in names:
        lab.until_complete(name, 1500 - (time.monotonic() - began))
    for number, name in enumerate(names):
        status = lab.status(name)
        assert status["currentRound"] == 3, name
        assert lab.rounds(name)[-1].contributors == [f"site-{n}" for n in range(1 + number % 2)], name
        assert lab.controller(name).incarnation == 1, f"{name}: a controller that had to compile would have been killed"
        assert [event for event in lab.events(name) if event[0] == "Warning"] == [], name

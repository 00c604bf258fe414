"""What dies comes back, and what was trained is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from metisfl.api import FederationState

Run = Callable[[dict[str, Any]], str]
Example = Callable[..., dict[str, Any]]

# Rounds of about a second: long enough to be hit in the middle.
STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}


def test_a_run_goes_on_when_a_learner_and_then_the_controller_are_killed(lab: Any, run: Run, example: Example) -> None:
    last = 60
    name = run(example("digits", "steady", training=STEADY, termination={"maxRounds": last}))
    shown: list[int] = []

    def reached(number: int) -> bool:
        """By the table that a person watches."""
        current = row_of(lab.kubectl("get", "mfed", name, "-n", lab.namespace))["ROUND"]
        if current and int(current) not in shown:
            shown.append(int(current))
        return bool(current) and int(current) >= number

    lab.until("the first round", lambda: reached(1))
    lab.kill(f"{name}-silo-a-1")
    lab.until("the learner's return", lambda: returned(lab, name, "silo-a-1"))
    lab.kill(f"{name}-controller-0")
    lab.until("the last round", lambda: reached(last), 240)
    status = lab.until_complete(name)
    # A controller that was killed in the middle of a round comes back with the last one that was committed.
    assert all(later >= earlier - 1 for earlier, later in pairwise(shown)), shown
    assert len(shown) >= 3, "rounds advance before one's eyes"

    assert status["currentRound"] == last
    assert lab.controller(name).incarnation == 2
    rounds = lab.rounds(name)
    assert [entry.number for entry in rounds] == list(range(1, last + 1))
    assert any("silo-a-1" not in entry.contributors for entry in rounds), "a round went on with its quorum"
    row = row_of(lab.kubectl("get", "mfed", name, "-n", lab.namespace))
    assert list(row) == ["NAME", "COMPLETE", "ROUND", "ROUNDS", "LEARNERS", "METRIC", "AGE"]
    assert (row["COMPLETE"], row["ROUND"], row["ROUNDS"]) == ("True", str(last), str(last))
    assert float(row["METRIC"]) > 0.5


@pytest.mark.slow
def test_suspend_and_resume_keep_what_was_trained(lab: Any, run: Run, example: Example) -> None:
    name = run(example("digits", "paused", training=STEADY, termination={"maxRounds": 15}))
    lab.until("two rounds", lambda: lab.status(name).get("currentRound", 0) >= 2)
    lab.edit(name, suspend=True)
    lab.until("no pod is left", lambda: lab.pods(name) == [])
    assert lab.condition(name, "Suspended")[0] == "True"
    reached = lab.status(name)["currentRound"]
    assert 2 <= reached < 15
    lab.edit(name, suspend=False)
    lab.until_complete(name, 300)
    document = lab.controller(name)
    assert document.state is FederationState.COMPLETE
    assert document.incarnation == 2
    assert [entry.number for entry in lab.rounds(name)] == list(range(1, 16))


def returned(lab: Any, name: str, learner: str) -> bool:
    """Whether a learner missed a round and took part in a later one."""
    took_part = [learner in entry.contributors for entry in lab.rounds(name)]
    return False in took_part and any(took_part[took_part.index(False) :])


def row_of(table: str) -> dict[str, str]:
    """The one row that kubectl printed, by column; a cell may be empty."""
    header, row = table.splitlines()
    starts = [found.start() for found in re.finditer(r"\S+", header)]
    ends = [*starts[1:], None]
    return {header[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}

"""Selection in the course of rounds, on fake time. Lines are those of conftest's Script."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from metisfl.spec import parse_federation
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.selection.power_of_choice import PowerOfChoice
from metisfl_controller.rounds.selection.random import Random
from metisfl_controller.rounds.selection.round_robin import RoundRobin
from metisfl_controller.rounds.selection.selector import History
from metisfl_controller.rounds.tasks import Kind, TaskId

Scripts = Callable[..., Any]


def train_task(learner: str, version: int) -> str:
    return str(TaskId("uid", 1, Kind.TRAIN, version, learner, 1))


def test_who_is_not_selected_waits_and_has_its_turn(script: Scripts) -> None:
    f = script(learners=3, selection=RoundRobin(2), max_rounds=3)
    assert f.started("a-0", "a-1", "a-2") == [
        "a-2 waits",
        "begin 1",
        "a-0 trains and evaluates 0",
        "a-1 trains and evaluates 0",
    ]
    assert f.uploads("a-0", "a-1")[-1] == "commit 1 of a-0 a-1"
    assert f.committed(1) == ["a-1 waits", "begin 2", "a-0 trains and evaluates 1", "a-2 trains and evaluates 1"]
    assert f.uploads("a-0", "a-2")[-1] == "commit 2 of a-0 a-2"
    assert f.committed(2)[:1] == ["a-0 waits"]


def test_the_reason_to_wait_names_the_round(script: Scripts) -> None:
    f = script(learners=2, selection=RoundRobin(1))
    f.ready("a-0", "a-1")
    f.uploads("a-0")
    commands = f.machine.handle(m.Committed(0), f.now)
    assert m.Wait("a-1", "not selected for round 1") in commands


def test_the_quorum_is_of_those_who_were_selected(script: Scripts) -> None:
    f = script(learners=4, selection=RoundRobin(2), quorum_percent=50)
    f.started("a-0", "a-1", "a-2", "a-3")
    f.uploads("a-1")
    assert f.lost("a-0") == ["commit 1 of a-1, lost a-0"]


def test_who_was_not_selected_may_save_a_round_whose_learners_are_lost(script: Scripts) -> None:
    f = script(learners=3, selection=RoundRobin(1))
    f.started("a-0", "a-1", "a-2")
    f.lost("a-0")
    assert f.after(100) == ["a-1 trains and evaluates 0", "a-2 trains and evaluates 0"]


def test_a_restarted_controller_asks_those_of_the_open_round_again(script: Scripts) -> None:
    """Round 2 was under way: who has had its turn in round 1 is not asked, who holds a result sends it again."""
    resumed = Resumed(version=1, started_at=900.0, learners={"a-0": History(1, 1), "a-1": History(1, 1)})
    f = script(learners=4, selection=RoundRobin(2), incarnation=2, max_rounds=9, resumed=resumed)
    f.ready("a-0", "a-1", "a-2")
    assert f.ready("a-3", held=(train_task("a-3", 1),)) == [
        "a-3 waits",
        "a-0 waits",
        "a-1 waits",
        "begin 2",
        "a-2 trains and evaluates 1",
        "a-3 resends 1",
    ]


def test_what_a_learner_that_is_not_selected_brings_along_is_discarded(script: Scripts) -> None:
    resumed = Resumed(version=1, started_at=900.0, learners={"a-0": History(1, 1)})
    f = script(learners=2, selection=RoundRobin(1), incarnation=2, max_rounds=9, resumed=resumed)
    f.ready("a-0", running=train_task("a-0", 1))
    assert f.ready("a-1")[1:] == ["a-0 discards 1", "a-0 waits", "begin 2", "a-1 trains and evaluates 1"]


def test_losses_decide_who_is_chosen_next(script: Scripts) -> None:
    f = script(learners=3, selection=PowerOfChoice(3, 1, "accuracy", 0), max_rounds=9)
    begun = f.started("a-0", "a-1", "a-2")
    lines, seen = begun, []
    for version in range(3):
        (chosen,) = [line.split()[0] for line in lines if "trains" in line]
        seen.append(chosen)
        f.evaluates(version, **{chosen.replace("-", "_"): float(len(seen))})
        f.uploads(chosen)
        lines = f.committed(version + 1)
    # Each was unknown once; then the highest value counts.
    assert sorted(seen) == ["a-0", "a-1", "a-2"]
    assert f"{seen[-1]} trains and evaluates 3" in lines


def test_a_changed_policy_holds_from_the_next_round_on(script: Scripts) -> None:
    f = script(learners=3, selection=RoundRobin(1), max_rounds=9)
    f.started("a-0", "a-1", "a-2")
    values = {"expected_learners": 3, "min_learners": 3, "quorum_percent": 100, "round_deadline": 100.0}
    f.do(m.PlanChanged(Plan(**values, max_rounds=9, selection=Random(Fraction(1), 0))))  # type: ignore[arg-type]
    f.uploads("a-0")
    assert sum("trains" in line for line in f.committed(1)) == 3


def test_a_metric_that_nobody_reports_is_remarked_upon_once(script: Scripts) -> None:
    f = script(learners=2, selection=PowerOfChoice(2, 1, "perplexity", 0), max_rounds=9)
    begun, remarks = f.started("a-0", "a-1"), []
    for version in range(3):
        (chosen,) = [line.split()[0] for line in begun if "trains" in line]
        f.evaluates(version, **{chosen.replace("-", "_"): 0.5})
        f.uploads(chosen)
        begun = f.committed(version + 1)
        remarks += [line for line in begun if line.startswith("remark")]
    assert remarks == [
        "remark: selection goes by metric 'perplexity', which no learner has reported; reported are accuracy. "
        "Until one does, only the size of their data counts"
    ]


def test_over_selection_asks_the_next_in_turn_and_needs_no_more_than_the_policy_takes(script: Scripts) -> None:
    f = script(learners=4, selection=RoundRobin(2), over_select=1)
    assert [line for line in f.started("a-0", "a-1", "a-2", "a-3") if "waits" in line] == ["a-3 waits"]
    f.uploads("a-2")
    assert f.uploads("a-1")[1].startswith("commit 1 of a-1 a-2, lost a-0")


def test_a_late_learner_takes_part_in_the_next_round_selected_or_not(script: Scripts) -> None:
    f = script(learners=3, selection=RoundRobin(2), quorum_percent=50, late_updates=True, max_rounds=9)
    f.started("a-0", "a-1", "a-2")
    late = f.tasks["a-0"]
    f.uploads("a-1")
    f.after(100)
    begun = f.committed(1)
    # In turn are a-2 and, as it was named first, a-0 or a-1; a-0 is still at its old task and is not given another.
    assert "a-0" in f.machine.participants
    assert not any(line.startswith("a-0 trains") for line in begun)
    assert f.machine.expects(late)


def plan_of(selection: dict[str, Any], **protocol: Any) -> Plan:
    return Plan.of(
        parse_federation(
            {
                "apiVersion": "metisfl.dev/v1alpha1",
                "kind": "Federation",
                "metadata": {"name": "sample"},
                "spec": {
                    "learner": {"entrypoint": "m:C"},
                    "learnerGroups": [{"name": "a", "replicas": 7}, {"name": "b", "replicas": 3}],
                    "selection": selection,
                    "protocol": {"synchronous": protocol},
                },
            }
        ).spec
    )


def test_a_round_needs_as_many_learners_as_the_quorum_of_a_full_selection() -> None:
    assert plan_of({}).min_learners == 10
    assert plan_of({}, quorumPercent=75).min_learners == 8
    assert plan_of({"type": "RoundRobin", "roundRobin": {"learners": 4}}, quorumPercent=75).min_learners == 3
    assert plan_of({"type": "PerGroup", "perGroup": {"learners": 4}}).min_learners == 7
    assert plan_of({"type": "Random", "random": {"fraction": "0.5"}, "minLearners": 9}).min_learners == 9

"""Evaluators in the course of rounds, on fake time: they get every version and hold nobody up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metisfl.spec.termination import Goal, MetricSource
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Report
from metisfl_controller.rounds.phases import Phase, Resumed
from metisfl_controller.rounds.protocols.parameters import Buffering
from metisfl_controller.rounds.protocols.staleness import constant
from metisfl_controller.rounds.tasks import Kind, TaskId
from metisfl_controller.rounds.termination.plateau import Plateau
from metisfl_controller.rounds.termination.target import Target
from metisfl_controller.rounds.termination.termination import Observed

Scripts = Callable[..., Any]
WAIT = 60.0
GRACE = 15.0


def started(f: Any, *evaluators: str) -> list[str]:
    """One learner and these evaluators, up to the first round."""
    f.evaluator_ready(*evaluators)
    return f.started("a-0")


def a_round(f: Any, version: int) -> list[str]:
    """The learner's part of the round that makes this version; what its commit said."""
    f.evaluates(version - 1, a_0=0.5)
    f.uploads("a-0")
    return f.committed(version)


def eval_task(evaluator: str, version: int, incarnation: int = 1) -> TaskId:
    return TaskId("uid", incarnation, Kind.EVALUATE, version, evaluator, 1)


# ---- the normal course


def test_an_evaluator_gets_every_version_and_nothing_else(script: Scripts) -> None:
    f = script(learners=1, max_rounds=2, evaluators=("e-0",))
    assert f.evaluator_ready("e-0") == ["e-0 waits"]
    assert f.started("a-0") == ["e-0 evaluates 0", "begin 1", "a-0 trains and evaluates 0"]
    assert f.evaluator_reports(0, e_0=0.25) == ["evaluators say 0 accuracy=0.25/10"]
    assert a_round(f, 1) == ["e-0 evaluates 1", "begin 2", "a-0 trains and evaluates 1"]
    assert f.evaluator_reports(1, e_0=0.5) == ["evaluators say 1 accuracy=0.5/10"]
    assert a_round(f, 2) == ["e-0 evaluates 2", "a-0 evaluates 2"]
    assert f.evaluator_reports(2, e_0=0.75) == ["evaluators say 2 accuracy=0.75/10"]
    assert f.evaluates(2, a_0=0.5) == ["metrics 2 accuracy=0.5/10", "Complete: MaxRoundsReached at 2"]
    assert f.end.message == "all 2 rounds are done"


def test_evaluators_are_no_learners(script: Scripts) -> None:
    """Neither for the start of a round, nor for its quorum, nor for the initial model."""
    f = script(learners=2, min_learners=2)
    f.evaluator_ready("a-0", "e-0")
    f.ready("b-0")
    assert f.after(1000) == []
    assert f.machine.phase is Phase.GATHERING
    assert f.ready("b-1") == ["b-1 waits", "b-0 initialises"]
    f.uploads("b-0")
    f.committed(0)
    assert set(f.machine.participants) == {"b-0", "b-1"}
    f.evaluates(0, b_0=0.5, b_1=0.5)
    assert f.uploads("b-0", "b-1")[-1] == "commit 1 of b-0 b-1"


def test_metrics_of_several_evaluators_are_weighted_by_examples(script: Scripts) -> None:
    f = script(learners=1)
    started(f, "e-0", "e-1")
    assert f.evaluator_reports(0, examples=30, e_0=0.0) == ["evaluators say 0 accuracy=0/30"]
    assert f.evaluator_reports(0, examples=10, e_1=1.0) == ["evaluators say 0 accuracy=0.25/40"]


def test_without_rounds_evaluators_get_every_version_just_as_well(script: Scripts) -> None:
    f = script(learners=2, max_rounds=9, buffering=Buffering(1, 0.5, constant, 20), evaluators=("e-0",))
    f.evaluator_ready("e-0")
    assert f.started("a-0", "a-1")[0] == "e-0 evaluates 0"
    f.uploads("a-1")
    # Version 1 is made of one update, while the evaluator is still at work on version 0.
    assert not any("e-0" in line for line in f.committed(1))
    assert f.evaluator_reports(0, e_0=0.5) == ["evaluators say 0 accuracy=0.5/10", "e-0 evaluates 1"]
    assert f.machine.versions >= {0, 1}


# ---- slow, dead and late


def test_a_slow_evaluator_gets_the_newest_version_when_it_is_free(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9)
    started(f, "e-0")
    for version in (1, 2, 3):
        assert not any("e-0" in line for line in a_round(f, version))
    assert f.evaluator_reports(0, e_0=0.25) == ["evaluators say 0 accuracy=0.25/10", "e-0 evaluates 3"]
    assert f.evaluator_reports(3, e_0=0.5) == ["e-0 missed 1-2", "evaluators say 3 accuracy=0.5/10"]
    evaluator = f.machine.evaluators.present["e-0"]
    assert (evaluator.evaluated, evaluator.missed, evaluator.reported) == (2, 2, 3)


def test_a_slow_evaluator_is_waited_for_at_the_end_for_some_time_only(script: Scripts) -> None:
    f = script(learners=1, max_rounds=1, evaluators=("e-0",), evaluator_wait=WAIT)
    started(f, "e-0")
    a_round(f, 1)
    assert f.evaluates(1, a_0=0.5) == []
    assert f.after(WAIT - 1) == []
    assert f.after(1) == ["metrics 1 accuracy=0.5/10", "Complete: MaxRoundsReached at 1"]
    assert f.end.message == "all 1 rounds are done; evaluator e-0 did not evaluate the last version in time"


def test_one_that_is_busy_with_an_older_version_gets_the_last_one_in_that_time(script: Scripts) -> None:
    f = script(learners=1, max_rounds=1, evaluators=("e-0",), evaluator_wait=WAIT)
    started(f, "e-0")
    a_round(f, 1)
    f.evaluates(1, a_0=0.5)
    f.after(WAIT - 2)
    assert f.evaluator_reports(0, e_0=0.5) == ["evaluators say 0 accuracy=0.5/10", "e-0 evaluates 1"]
    assert f.evaluator_reports(1, e_0=0.5)[-1] == "Complete: MaxRoundsReached at 1"
    assert f.end.message == "all 1 rounds are done"


@pytest.mark.parametrize("in_the_middle", [True, False])
def test_a_dead_evaluator_holds_no_round_and_the_end_for_the_grace_only(script: Scripts, in_the_middle: bool) -> None:
    f = script(learners=1, max_rounds=1, evaluators=("e-0", "e-1"), evaluator_wait=WAIT)
    started(f, *(["e-0"] if in_the_middle else []))
    f.evaluator_lost("e-0")
    assert a_round(f, 1) == ["a-0 evaluates 1"]
    f.evaluates(1, a_0=0.5)
    assert f.after(GRACE - 1) == []
    assert f.after(1)[-1] == "Complete: MaxRoundsReached at 1"
    assert f.end.message == "all 1 rounds are done; evaluators e-0, e-1 did not evaluate the last version in time"


def test_an_evaluator_that_fails_at_a_version_gets_the_next(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9)
    started(f, "e-0")
    assert f.fails("e-0") == []
    assert a_round(f, 1)[0] == "e-0 evaluates 1"
    # A version that was replaced before it could be downloaded fails like that; the newest follows at once.
    a_round(f, 2)
    assert f.fails("e-0") == ["e-0 evaluates 2"]
    assert f.evaluator_reports(2, e_0=0.5)[0] == "e-0 missed 0-1"


def test_one_that_fails_at_the_last_version_is_not_waited_for(script: Scripts) -> None:
    f = script(learners=1, max_rounds=1, evaluators=("e-0",))
    started(f, "e-0")
    f.evaluator_reports(0, e_0=0.5)
    a_round(f, 1)
    f.evaluates(1, a_0=0.5)
    f.fails("e-0")
    assert f.after(GRACE)[-1] == "Complete: MaxRoundsReached at 1"
    assert "evaluator e-0 did not evaluate the last version" in f.end.message


def test_an_evaluator_that_comes_late_begins_with_the_newest_version(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9)
    started(f)
    a_round(f, 1)
    assert f.evaluator_ready("e-0") == ["e-0 evaluates 1"]
    assert f.evaluator_reports(1, e_0=0.5) == ["e-0 missed 0-0", "evaluators say 1 accuracy=0.5/10"]


def test_only_evaluators_ready_means_waiting_for_learners(script: Scripts) -> None:
    f = script(learners=1, too_few_learners=40.0)
    f.evaluator_ready("e-0", "e-1")
    f.after(0)
    assert f.after(39) == []
    assert f.after(1) == ["Failed: TooFewLearners at None"]


def test_a_failed_federation_waits_for_no_evaluator(script: Scripts) -> None:
    f = script(learners=1, evaluators=("e-0",))
    started(f, "e-0")
    f.is_rejected("a-0")
    assert f.end.reason == "QuorumNotReached"


# ---- connections


def test_a_reconnected_evaluator_goes_on_with_what_it_is_at(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9)
    started(f, "e-0")
    assert f.evaluator_ready("e-0", running=str(f.tasks["e-0"])) == []
    f.evaluator_lost("e-0")
    a_round(f, 1)
    # What it is at is older than the newest, and still its version's metrics.
    assert f.evaluator_ready("e-0", running=str(eval_task("e-0", 0))) == []
    assert f.evaluator_reports(0, e_0=0.5) == ["evaluators say 0 accuracy=0.5/10", "e-0 evaluates 1"]


def test_a_restarted_evaluator_is_asked_again(script: Scripts) -> None:
    f = script(learners=1)
    started(f, "e-0")
    assert f.evaluator_ready("e-0") == ["e-0 evaluates 0"]
    f.evaluator_reports(0, e_0=0.5)
    assert f.evaluator_ready("e-0") == ["e-0 waits"]


@pytest.mark.parametrize(
    "running",
    ["nonsense", str(eval_task("e-1", 0)), "uid/1/train/0/e-0/1", "other/1/evaluate/0/e-0/1", "uid/1/evaluate/7/e-0/1"],
)
def test_what_is_no_evaluation_of_ours_is_replaced(script: Scripts, running: str) -> None:
    f = script(learners=1)
    started(f)
    assert f.evaluator_ready("e-0", running=running) == ["e-0 evaluates 0"]


def test_a_restarted_controller_goes_on_with_evaluators_at_work(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, incarnation=2, resumed=Resumed(version=4, started_at=900.0))
    assert f.evaluator_ready("e-0", running=str(eval_task("e-0", 3))) == []
    assert f.evaluator_ready("e-1") == ["e-1 evaluates 4"]
    assert f.evaluator_reports(3, e_0=0.5) == ["evaluators say 3 accuracy=0.5/10", "e-0 evaluates 4"]


def test_evaluations_sent_again_are_counted_once_and_strays_not_at_all(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9)
    started(f, "e-0")
    f.evaluator_reports(0, e_0=0.5)
    assert f.evaluator_reports(0, e_0=0.5) == ["evaluators say 0 accuracy=0.5/10"]
    assert f.machine.evaluators.present["e-0"].evaluated == 1
    a_round(f, 1)
    f.evaluator_reports(1, e_0=0.5)
    for stray in (0, 7):
        assert f.evaluator_reports(stray, e_0=0.5) == []
    assert f.evaluator_reports(1, x_0=0.5) == []


# ---- the end by evaluators


def by_evaluators(**changes: Any) -> Target:
    return Target("accuracy", at_least=0.9, source=MetricSource.EVALUATORS, **changes)


def test_the_target_by_evaluators(script: Scripts) -> None:
    """The version is the newest one: its learners' metrics are asked for before the end."""
    f = script(learners=1, max_rounds=9, target=by_evaluators(), evaluators=("e-0",))
    started(f, "e-0")
    f.evaluator_reports(0, e_0=0.5)
    assert "Complete" not in f.evaluates(0, a_0=1.0)[-1]
    f.uploads("a-0")
    f.committed(1)
    lines = f.evaluator_reports(1, e_0=0.95)
    assert lines == ["evaluators say 1 accuracy=0.95/10", "a-0 discards 1", "a-0 evaluates 1"]
    assert f.evaluates(1, a_0=0.5) == ["metrics 1 accuracy=0.5/10", "Complete: TargetMetricReached at 1"]
    assert f.end.message == "version 1 reached evaluators' accuracy ≥ 0.9: 0.95"


def test_the_version_that_reached_the_target_is_published_though_there_are_newer_ones(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, target=by_evaluators())
    started(f, "e-0")
    a_round(f, 1)
    a_round(f, 2)
    assert f.evaluator_reports(0, e_0=0.95)[-1] == "Complete: TargetMetricReached at 0"


def test_the_end_waits_for_a_commit_under_way(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, target=by_evaluators())
    started(f, "e-0")
    f.evaluates(0, a_0=0.5)
    f.uploads("a-0")
    assert f.evaluator_reports(0, e_0=0.95) == ["evaluators say 0 accuracy=0.95/10"]
    assert f.committed(1)[-1] == "Complete: TargetMetricReached at 0"


def test_metrics_count_when_nobody_is_at_work_on_the_version(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, target=by_evaluators())
    started(f, "e-0", "e-1")
    assert f.evaluator_reports(0, e_0=1.0) == ["evaluators say 0 accuracy=1/10"]
    assert f.end is None
    # Its loss makes the other's metrics all there will be.
    assert f.evaluator_lost("e-1")[:1] == ["evaluators say 0 accuracy=1/10"]
    assert f.evaluates(0, a_0=0.5)[-1] == "Complete: TargetMetricReached at 0"


def test_a_version_that_becomes_conclusive_after_a_newer_one_does_not_count(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, target=by_evaluators(patience=2))
    started(f, "e-0", "e-1")
    f.evaluator_reports(0, e_0=0.5)
    a_round(f, 1)
    f.evaluator_reports(1, e_0=0.95)
    f.evaluator_reports(0, e_1=1.0)
    assert f.end is None
    assert f.evaluator_reports(1, e_1=0.95) != []
    assert f.end is None


def test_patience_of_evaluators_survives_a_restart(script: Scripts) -> None:
    seen = [Observed(MetricSource.EVALUATORS, version, {"accuracy": 0.95}) for version in (2, 3)]
    f = script(
        learners=1,
        max_rounds=9,
        target=by_evaluators(patience=3),
        incarnation=2,
        resumed=Resumed(version=4, started_at=900.0, observed=seen),
    )
    f.evaluator_ready("e-0")
    f.ready("a-0")
    f.evaluator_reports(4, e_0=0.9)
    assert f.evaluates(4, a_0=0.5)[-1] == "Complete: TargetMetricReached at 4"


def test_a_plateau_of_evaluators_metrics(script: Scripts) -> None:
    plateau = Plateau("accuracy", 1, Goal.MAXIMISE, source=MetricSource.EVALUATORS)
    f = script(learners=1, max_rounds=9, plateau=plateau)
    started(f, "e-0")
    f.evaluator_reports(0, e_0=0.5)
    a_round(f, 1)
    f.evaluator_reports(1, e_0=0.5)
    assert f.evaluates(1, a_0=0.5)[-1] == "Complete: Plateau at 1"


def test_the_target_reached_by_the_last_version_is_the_reason(script: Scripts) -> None:
    f = script(learners=1, max_rounds=1, target=by_evaluators(), evaluators=("e-0",))
    started(f, "e-0")
    f.evaluator_reports(0, e_0=0.5)
    a_round(f, 1)
    f.evaluates(1, a_0=0.5)
    assert f.evaluator_reports(1, e_0=0.95)[-1] == "Complete: TargetMetricReached at 1"


def test_evaluators_without_examples_have_no_say(script: Scripts) -> None:
    f = script(learners=1, max_rounds=9, target=by_evaluators())
    started(f, "e-0")
    assert f.do(m.EvaluatorReported("e-0", 0, Report(0, {"accuracy": 1.0}))) == []
    assert f.end is None

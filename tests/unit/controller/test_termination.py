"""When a federation ends: each criterion against its definition, and in the course of rounds, also over restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.spec.termination import Goal, MetricSource
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.termination.max_duration import MaxDuration
from metisfl_controller.rounds.termination.max_rounds import MaxRounds
from metisfl_controller.rounds.termination.plateau import Plateau, PlateauWatch
from metisfl_controller.rounds.termination.target import Target, TargetMetric
from metisfl_controller.rounds.termination.termination import Observed, Termination
from metisfl_controller.rounds.termination.too_few_learners import TooFewLearners

Scripts = Callable[..., Any]
DEADLINE = 100.0
values = st.lists(st.integers(0, 6).map(lambda n: n / 4), max_size=30)


def first(watch: TargetMetric | PlateauWatch, series: list[float]) -> int | None:
    """At which version of the series the watch sees its end."""
    return next((version for version, value in enumerate(series) if watch.observe(version, value)), None)


# ---- criteria


def test_rounds_and_duration() -> None:
    assert MaxRounds(3).judge(2) is None
    assert MaxRounds(3).judge(3)
    assert MaxDuration(50.0).judge(None, 1000.0) is None
    assert MaxDuration(50.0).judge(960.0, 1009.0) is None
    assert MaxDuration(50.0).judge(960.0, 1010.0)
    assert MaxDuration(None).judge(0.0, 1e9) is None


@given(values, st.integers(1, 5), st.booleans())
def test_a_target_must_hold_for_as_many_versions_in_a_row_as_asked(
    series: list[float], patience: int, at_least: bool
) -> None:
    target = Target("m", at_least=1.0, patience=patience) if at_least else Target("m", at_most=0.5, patience=patience)
    met = [value >= 1.0 if at_least else value <= 0.5 for value in series]
    expected = next((t for t in range(patience - 1, len(series)) if all(met[t - patience + 1 : t + 1])), None)
    assert first(TargetMetric(target), series) == expected


@given(values, st.integers(1, 5), st.sampled_from([0.0, 0.25, 0.3]), st.sampled_from(Goal))
def test_a_plateau_is_so_many_versions_without_a_better_one(
    series: list[float], rounds: int, min_delta: float, goal: Goal
) -> None:
    """Against the definition: no value since the best was better than the best by more than minDelta."""
    sign = 1 if goal is Goal.MAXIMISE else -1
    expected, best_at = None, 0
    for t in range(1, len(series)):
        if sign * (series[t] - series[best_at]) > min_delta:
            best_at = t
        if t - best_at == rounds:
            expected = t
            break
    assert first(PlateauWatch(Plateau("m", rounds, goal, min_delta)), series) == expected


def test_too_few_learners_for_too_long() -> None:
    watch = TooFewLearners(minimum=2, seconds=30.0)
    assert watch.judge(["a-0"], 100.0) is None
    assert watch.judge(["a-0", "a-1"], 129.0) is None
    assert watch.judge(["a-0"], 131.0) is None
    assert watch.judge([], 160.9) is None
    conclusion = watch.judge(["a-0"], 161.0)
    assert conclusion is not None
    assert (conclusion.complete, conclusion.reason) == (False, "TooFewLearners")
    assert conclusion.message == "for 30 seconds fewer than 2 learners were ready; now 1: a-0"
    assert TooFewLearners(2, None).judge([], 1e9) is None


@given(values, st.integers(0, 30), st.integers(1, 4))
def test_a_restarted_controller_ends_where_the_first_would_have(
    series: list[float], restart: int, patience: int
) -> None:
    plan = plan_with(target=Target("m", at_least=1.0, patience=patience), plateau=Plateau("m", 4, Goal.MAXIMISE))
    seen = [Observed(MetricSource.LEARNERS, version, {"m": value}) for version, value in enumerate(series)]
    undisturbed = [Termination(plan, seen[:t]).observe(seen[t]) for t in range(len(seen))]
    termination = Termination(plan)
    for each in seen[:restart]:
        termination.observe(each)
    restarted = Termination(plan, seen[:restart])
    assert [restarted.observe(each) for each in seen[restart:]] == undisturbed[restart:]
    assert [termination.observe(each) for each in seen[restart:]] == undisturbed[restart:]


def test_a_version_counts_once_and_none_after_a_newer_one() -> None:
    termination = Termination(plan_with(target=Target("m", at_least=1.0, patience=2)))
    assert termination.observe(Observed(MetricSource.LEARNERS, 3, {"m": 1.0})) is None
    for version in (3, 2):
        assert termination.observe(Observed(MetricSource.LEARNERS, version, {"m": 1.0})) is None
    assert termination.observe(Observed(MetricSource.EVALUATORS, 4, {"m": 1.0})) is None
    assert termination.observe(Observed(MetricSource.LEARNERS, 4, {"m": 1.0}))


def test_a_changed_plan_holds_for_what_was_seen_before() -> None:
    termination = Termination(plan_with())
    termination.observe(Observed(MetricSource.LEARNERS, 0, {"m": 1.0}))
    termination.adopt(plan_with(target=Target("m", at_least=1.0, patience=2)))
    assert termination.observe(Observed(MetricSource.LEARNERS, 1, {"m": 1.0}))


def test_a_metric_that_nobody_reports_is_remarked_upon() -> None:
    termination = Termination(
        plan_with(
            target=Target("acuracy", at_least=1.0),
            plateau=Plateau("f1", 4, Goal.MAXIMISE, 0.0, MetricSource.EVALUATORS),
        )
    )
    assert termination.remark == ""
    termination.observe(Observed(MetricSource.EVALUATORS, 0, {"f1": 0.5}))
    assert termination.remark == ""
    termination.observe(Observed(MetricSource.LEARNERS, 0, {"loss": 2.0, "accuracy": 0.5}))
    assert termination.remark == (
        "the end depends on acuracy, which nobody has reported; reported metrics: accuracy, loss"
    )
    termination.observe(Observed(MetricSource.LEARNERS, 1, {"acuracy": 0.5}))
    assert termination.remark == ""


def plan_with(**changes: Any) -> Plan:
    return Plan(
        expected_learners=1, min_learners=1, quorum_percent=100, round_deadline=DEADLINE, max_rounds=99, **changes
    )


# ---- in the course of rounds


def course(f: Any, *accuracies: float, start: int = 0) -> list[str]:
    """One learner's rounds with these accuracies of version `start` and those after it; what the last step said."""
    lines: list[str] = []
    for version, accuracy in enumerate(accuracies, start):
        lines = f.evaluates(version, a_0=accuracy)
        if f.end is None and version < start + len(accuracies) - 1:
            f.uploads("a-0")
            f.committed(version + 1)
    return lines


def test_an_end_by_rounds_tells_of_a_metric_that_nobody_reported(script: Scripts) -> None:
    f = script(learners=1, max_rounds=2, target=Target("acuracy", at_least=0.9))
    f.started("a-0")
    remark = "the end depends on acuracy, which nobody has reported; reported metrics: accuracy"
    said = []
    for version, accuracy in enumerate((0.5, 0.6, 0.95)):
        said += f.evaluates(version, a_0=accuracy)
        if f.end is None:
            f.uploads("a-0")
            f.committed(version + 1)
    assert said.count(f"remark: {remark}") == 1
    assert f.end.message == f"all 2 rounds are done; {remark}"


def test_patience_over_rounds(script: Scripts) -> None:
    f = script(learners=1, max_rounds=99, target=Target("accuracy", at_least=0.9, patience=2))
    f.started("a-0")
    assert course(f, 0.95, 0.5, 0.91, 0.92)[-1] == "Complete: TargetMetricReached at 3"
    assert f.end.message == "version 3 reached accuracy ≥ 0.9: 0.92, in 2 evaluated versions in a row"


def test_a_plateau_ends_it(script: Scripts) -> None:
    f = script(learners=1, max_rounds=99, plateau=Plateau("accuracy", 2, Goal.MAXIMISE, 0.01))
    f.started("a-0")
    assert course(f, 0.5, 0.75, 0.755, 0.74)[-1] == "Complete: Plateau at 3"
    assert f.end.message == (
        "accuracy has not improved by more than 0.01 in 2 evaluated versions: 0.75 at version 1, 0.74 at version 3"
    )


def test_only_evaluated_versions_count_for_patience(script: Scripts) -> None:
    f = script(learners=1, max_rounds=99, evaluate_every=2, target=Target("accuracy", at_least=0.9, patience=2))
    f.started("a-0")
    f.evaluates(0, a_0=1.0)
    f.uploads("a-0")
    f.committed(1)
    f.uploads("a-0")
    f.committed(2)
    assert f.evaluates(2, a_0=1.0)[-1] == "Complete: TargetMetricReached at 2"


def test_a_restart_does_not_forget_versions_that_met_the_target(script: Scripts) -> None:
    """The version that it finds is evaluated again, and so counts once."""
    seen = [Observed(MetricSource.LEARNERS, version, {"accuracy": 0.95}) for version in (2, 3)]
    resumed = Resumed(version=4, started_at=900.0, observed=seen)
    f = script(
        learners=1, max_rounds=99, target=Target("accuracy", at_least=0.9, patience=4), incarnation=2, resumed=resumed
    )
    f.ready("a-0")
    assert course(f, 0.95, 0.95, start=4)[-1] == "Complete: TargetMetricReached at 5"


def test_the_last_version_may_complete_the_row(script: Scripts) -> None:
    f = script(learners=1, max_rounds=1, target=Target("accuracy", at_least=0.9, patience=2))
    f.started("a-0")
    assert course(f, 0.95, 0.95)[-1] == "Complete: TargetMetricReached at 1"


@pytest.mark.parametrize("phase", ["gathering", "initialising", "between", "training"])
def test_too_few_learners_fail_it_in_every_phase(script: Scripts, phase: str) -> None:
    f = script(learners=2, too_few_learners=40.0, max_rounds=9)
    if phase == "gathering":
        f.ready("a-0")
    elif phase == "initialising":
        f.ready("a-0", "a-1")
        f.lost("a-1")
    else:
        f.started("a-0", "a-1")
        if phase == "between":
            f.uploads("a-0", "a-1")
        f.lost("a-1")
        if phase == "between":
            f.committed(1)
    assert f.after(39) == []
    version = {"between": 1, "training": 0}.get(phase)
    assert f.after(1)[-1] == f"Failed: TooFewLearners at {version}"
    assert f.end.message == "for 40 seconds fewer than 2 learners were ready; now 1: a-0"


def test_learners_that_return_in_time_start_the_clock_anew(script: Scripts) -> None:
    f = script(learners=2, too_few_learners=40.0)
    f.started("a-0", "a-1")
    f.lost("a-1")
    f.after(39)
    f.ready("a-1")
    f.lost("a-1")
    assert f.after(39) == []
    assert f.after(1)[-1] == "Failed: TooFewLearners at 0"


def test_a_restarted_controller_gives_learners_the_whole_time_to_return(script: Scripts) -> None:
    f = script(learners=2, too_few_learners=40.0, max_rounds=9, resumed=Resumed(version=4, started_at=900.0))
    f.after(0)
    assert f.after(39) == []
    assert f.after(1) == ["Failed: TooFewLearners at 4"]


def test_a_commit_under_way_is_waited_for(script: Scripts) -> None:
    f = script(learners=1, too_few_learners=40.0, max_rounds=9)
    f.started("a-0")
    f.uploads("a-0")
    f.lost("a-0")
    assert f.after(1000) == []
    assert f.committed(1) == []
    assert f.after(40) == ["Failed: TooFewLearners at 1"]


def test_metrics_of_too_few_learners_are_shown_and_do_not_count(script: Scripts) -> None:
    f = script(learners=3, quorum_percent=67, max_rounds=9, target=Target("accuracy", at_least=0.9))
    f.started("a-0", "a-1", "a-2")
    f.evaluates(0, a_0=1.0)
    f.uploads("a-0", "a-1")
    commands = f.machine.handle(m.UpdateVerified(f.tasks["a-2"], m.Work(10, 1)), f.now)
    (recorded,) = [command for command in commands if isinstance(command, m.RecordMetrics)]
    assert (recorded.version, recorded.conclusive) == (0, False)
    assert f.end is None

"""Which ends of a process are worth another start."""

import pytest

from metisfl.local.restarts import (
    MAX_RESTARTS,
    Fatal,
    Restart,
    Spare,
    judge_controller,
    judge_evaluator,
    judge_learner,
)


@pytest.mark.parametrize("exit_code", [-9, -11, -15, 0, 6])
def test_a_learner_that_was_ended_from_outside_is_started_again(exit_code: int) -> None:
    assert isinstance(judge_learner(exit_code, 0), Restart)


@pytest.mark.parametrize("exit_code", [1, 2, 3, 4, 5, 7, 120])
def test_a_learner_that_failed_by_itself_is_not(exit_code: int) -> None:
    verdict = judge_learner(exit_code, 0)
    assert isinstance(verdict, Fatal)
    assert f"(exit status {exit_code})" in verdict.why


def test_pauses_double_up_to_a_limit_and_restarts_end() -> None:
    verdicts = [judge_learner(-9, restarts) for restarts in range(MAX_RESTARTS + 1)]
    delays = [verdict.delay_seconds for verdict in verdicts if isinstance(verdict, Restart)]
    assert delays == [1, 2, 4, 8, 16]
    assert verdicts[-1] == Fatal("it was ended by SIGKILL, after 5 restarts")


def test_a_controller_is_started_again_only_after_a_signal() -> None:
    assert isinstance(judge_controller(-9, 0), Restart)
    assert isinstance(judge_controller(-9, MAX_RESTARTS), Fatal)
    assert isinstance(judge_controller(0, 0), Fatal)
    assert judge_controller(2, 0) == Fatal("its settings or the federation are wrong (exit status 2)")


def test_a_signal_without_a_name_is_told_by_number() -> None:
    verdict = judge_learner(-63, 0)
    assert isinstance(verdict, Restart)
    assert "signal 63" in verdict.why


def test_the_run_goes_on_without_an_evaluator_that_failed() -> None:
    assert isinstance(judge_evaluator(-9, 0), Restart)
    assert judge_evaluator(4, 0) == Spare("its code raised an error (exit status 4)")
    assert isinstance(judge_evaluator(-9, MAX_RESTARTS), Spare)

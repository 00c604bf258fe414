"""What `metisfl run` promises about its processes, with stand-ins that do not train."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from metisfl.local.record import RunRecord
from tests.integration.local.runs import Run, Starter, alive, eventually

SLOW = {"round_seconds": 0.3}


def summary_of(out: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(out.splitlines()[-1])
    return found


def started(run: Run, count: int = 4) -> None:
    eventually(lambda: sum(map(len, run.pids().values())) >= count, f"{count} processes have been started")


def test_a_run_leaves_model_history_logs_summary_and_report(start: Starter) -> None:
    run = start("--json")
    code, out, err = run.finish()
    assert code == 0, err
    summary = summary_of(out)
    assert summary["complete"] is True
    assert summary["rounds"] == 4
    assert summary["metrics"] == {"accuracy": 0.875}
    assert summary["reason"] == "MaxRoundsReached"
    assert isinstance(summary["seconds"], float)
    assert Path(str(summary["model"])).read_bytes() == b"weights" * 1000
    assert "<svg" in Path(str(summary["report"])).read_text()
    assert {log.name for log in (run.output / "logs").iterdir()} == {
        "controller.log",
        "silo-a-0.log",
        "silo-a-1.log",
        "silo-b-0.log",
    }
    assert (run.output / "history.sqlite").exists()
    record = RunRecord.model_validate_json((run.output / "summary.json").read_text())
    assert record.final
    assert [entry.number for entry in record.rounds] == [1, 2, 3, 4]
    assert "round 4/4" in err
    run.assert_nothing_runs()


def test_without_json_progress_and_result_are_lines_on_standard_output(start: Starter) -> None:
    code, out, err = start().finish()
    assert code == 0, err
    assert err == ""
    assert [line.partition(":")[0] for line in out.splitlines() if line.startswith("round")] == [
        f"round {number}/4" for number in range(1, 5)
    ]
    assert "complete after 4 rounds" in out
    assert "out/model.safetensors" in out


def test_no_progress_shows_only_the_result(start: Starter) -> None:
    code, out, _ = start("--no-progress").finish()
    assert code == 0
    assert out.startswith("complete after 4 rounds")


def test_learners_get_the_users_code_and_a_fair_share_of_threads(start: Starter) -> None:
    run = start("--json", "--set", "termination.maxRounds=2")
    code, out, _ = run.finish()
    assert code == 0
    assert summary_of(out)["rounds"] == 2
    environment = json.loads((run.output / "learners" / "silo-a-1" / "environment.json").read_text())
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(start.folder)
    assert int(environment["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 3)
    assert environment["METISFL_ENTRYPOINT"] == "nothing:Nothing"
    assert environment["METISFL_STATE_DIR"] == str(run.output / "learners" / "silo-a-1")


def test_a_killed_learner_is_started_again_and_the_run_completes(start: Starter) -> None:
    run = start("--json", "--set", "termination.maxRounds=10", plan=SLOW)
    eventually(lambda: run.rounds() >= 1, "the first round")
    os.kill(run.pids()["silo-a-1"][0], signal.SIGKILL)
    code, out, err = run.finish()
    assert code == 0, err
    assert summary_of(out)["rounds"] == 10
    assert "silo-a-1 ended: it was ended by SIGKILL; restart 1 of at most 5 in 1 s" in err
    assert len(run.pids()["silo-a-1"]) == 2
    assert RunRecord.model_validate_json((run.output / "summary.json").read_text()).restarts["silo-a-1"] == 1


def test_a_killed_controller_goes_on_with_the_same_federation_on_the_same_ports(start: Starter) -> None:
    run = start("--json", plan=SLOW)
    eventually(lambda: run.rounds() >= 1, "the first round")
    before = (run.output / "endpoints.json").read_text()
    os.kill(run.pids()["controller"][0], signal.SIGKILL)
    code, out, err = run.finish()
    assert code == 0, err
    assert summary_of(out)["rounds"] == 4
    assert (run.output / "endpoints.json").read_text() == before
    assert len(run.pids()["silo-a-0"]) == 1, "learners stay and reconnect"
    with sqlite3.connect(run.output / "history.sqlite") as history:
        uids = [uid for (uid,) in history.execute("select uid from starts")]
    assert len(uids) == 2
    assert len(set(uids)) == 1


@pytest.mark.slow
def test_a_learner_that_cannot_reach_the_controller_is_started_again(start: Starter) -> None:
    run = start("--json", plan={"learners": {"silo-b-0": {"exit": 6, "times": 1}}})
    code, _, err = run.finish()
    assert code == 0, err
    assert "silo-b-0 ended: it could not reach the controller (exit status 6); restart 1" in err


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        pytest.param(1, "an unexpected error", marks=pytest.mark.slow),
        pytest.param(2, "its settings are wrong", marks=pytest.mark.slow),
        (3, "its entrypoint cannot be loaded"),
        pytest.param(4, "its code raised an error", marks=pytest.mark.slow),
        pytest.param(5, "the controller refused it", marks=pytest.mark.slow),
    ],
)
def test_a_learners_own_failure_ends_the_run_with_its_last_lines(start: Starter, status: int, meaning: str) -> None:
    said = "first line\nModuleNotFoundError: No module named 'nothing'"
    run = start("--json", plan={"learners": {"silo-b-0": {"exit": status, "say": said}}})
    code, out, err = run.finish()
    assert code == 1
    assert f"silo-b-0 ended: {meaning} (exit status {status})" in err
    assert "the last lines of out/logs/silo-b-0.log:\n  first line\n  ModuleNotFoundError" in err
    summary = summary_of(out)
    assert summary["complete"] is False
    assert summary["reason"] == "ProcessFailed"
    run.assert_nothing_runs()


@pytest.mark.slow
def test_a_failure_half_way_keeps_the_model_and_can_be_resumed(start: Starter) -> None:
    broken = SLOW | {"learners": {"silo-b-0": {"exit": 4, "round": 2, "say": "ValueError: bad batch"}}}
    run = start("--json", plan=broken)
    code, out, err = run.finish()
    assert code == 1
    assert Path(str(summary_of(out)["model"])).exists()
    assert "--output out --resume" in err
    again = start("--json", "--resume", plan=SLOW)
    code, out, err = again.finish()
    assert code == 0, err
    assert summary_of(out)["rounds"] == 4
    with sqlite3.connect(run.output / "history.sqlite") as history:
        assert len(set(history.execute("select uid from starts"))) == 1


@pytest.mark.slow
def test_restarts_of_a_learner_come_ever_later(start: Starter) -> None:
    run = start("--json", plan={"learners": {"silo-b-0": {"signal": signal.SIGSEGV}}})
    eventually(lambda: len(run.pids().get("silo-b-0", [])) >= 3, "it was started three times")
    run.process.send_signal(signal.SIGTERM)
    code, _, err = run.finish()
    assert code == 130
    assert "restart 1 of at most 5 in 1 s" in err
    assert "restart 2 of at most 5 in 2 s" in err
    run.assert_nothing_runs()


def test_a_controller_that_refuses_to_start_ends_the_run_with_its_last_lines(start: Starter) -> None:
    run = start(plan={"controller": {"exit": 3, "say": "the state directory is locked by another controller"}})
    code, out, _ = run.finish()
    assert code == 1
    assert "controller ended: its state directory cannot be used" in out
    assert "  the state directory is locked by another controller" in out
    run.assert_nothing_runs()


def test_a_federation_that_fails_ends_with_its_reason(start: Starter) -> None:
    run = start("--json", plan={"controller": {"fail": "QuorumNotReached"}})
    code, out, err = run.finish()
    assert code == 1
    summary = summary_of(out)
    assert (summary["complete"], summary["reason"], summary["message"]) == (False, "QuorumNotReached", "as planned")
    assert "failed after" in err
    assert Path(str(summary["report"])).exists()
    run.assert_nothing_runs()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_every_process(start: Starter, number: signal.Signals) -> None:
    run = start("--json", "--set", "termination.maxRounds=1000", plan={"learners": {"silo-a-0": {"child": True}}})
    # The runner asks twice a second, the stand-in commits ten rounds a second.
    eventually(lambda: run.rounds() >= 10, "some rounds")
    run.process.send_signal(number)
    code, out, err = run.finish()
    assert code == 130
    assert summary_of(out)["reason"] == "Interrupted"
    assert summary_of(out)["rounds"] >= 1
    assert "--resume" in err
    assert "Traceback" not in err
    assert "silo-a-0-child" in run.pids()
    run.assert_nothing_runs()


def test_a_second_ctrl_c_does_not_wait_for_a_stubborn_learner(start: Starter) -> None:
    run = start("--set", "termination.maxRounds=1000", plan={"learners": {"silo-a-0": {"stubborn": True}}})
    eventually(lambda: {"silo-a-0", "silo-b-0"} <= run.pids().keys(), "both have been started")
    eventually(lambda: run.rounds() >= 1, "the first round")
    run.process.send_signal(signal.SIGINT)
    eventually(lambda: not alive(run.pids()["silo-b-0"][0]), "the others have ended")
    assert alive(run.pids()["silo-a-0"][0])
    run.process.send_signal(signal.SIGINT)
    code, _, _ = run.finish(seconds=5)
    assert code == 130
    run.assert_nothing_runs()


@pytest.mark.parametrize("rounds", [0, 1])
def test_nothing_survives_when_the_runner_itself_is_killed(start: Starter, rounds: int) -> None:
    plan = {"learners": {"silo-a-0": {"stubborn": True, "child": True}}}
    run = start("--set", "termination.maxRounds=1000", plan=plan)
    started(run, 1 if rounds == 0 else 5)
    eventually(lambda: run.rounds() >= rounds, "enough rounds")
    run.process.kill()
    run.finish()
    run.assert_nothing_runs()


def test_a_learner_that_never_gets_ready_is_named(start: Starter) -> None:
    plan = {"learners": {"silo-a-1": {"absent": True}}}
    run = start("--json", "--startup-timeout", "2", plan=plan)
    code, out, err = run.finish()
    assert code == 1
    assert "not enough learners were ready within 2 seconds; missing: silo-a-1" in str(summary_of(out)["message"])
    assert "the last lines of out/logs/silo-a-1.log" in err
    run.assert_nothing_runs()


def test_a_controller_that_never_listens_is_given_up(start: Starter) -> None:
    run = start("--json", "--startup-timeout", "2", plan={"controller": {"deaf": True}})
    code, out, _ = run.finish()
    assert code == 1
    assert summary_of(out)["message"] == "the controller did not listen within 2 seconds"
    run.assert_nothing_runs()


def test_a_damaged_model_is_not_kept(start: Starter) -> None:
    run = start("--json", plan={"controller": {"corrupt": True}})
    _, out, err = run.finish()
    assert summary_of(out)["model"] is None
    assert not (run.output / "model.safetensors").exists()
    assert "the model arrived damaged" in err


def test_a_folder_that_holds_a_finished_run_is_refused(start: Starter) -> None:
    assert start("--no-progress").finish()[0] == 0
    code, _, err = start().finish()
    assert code == 2
    assert "holds a run that has ended; name another folder with --output" in err
    code, _, err = start("--resume").finish()
    assert code == 2
    assert "nothing to resume" in err


def test_an_interrupted_run_is_refused_without_resume_and_goes_on_with_it(start: Starter) -> None:
    run = start(plan=SLOW)
    eventually(lambda: run.rounds() >= 2, "two rounds")
    run.process.send_signal(signal.SIGINT)
    assert run.finish()[0] == 130
    code, _, err = start().finish()
    assert code == 2
    assert "go on with it by --resume" in err
    code, out, err = start("--json", "--resume", plan=SLOW).finish()
    assert code == 0, err
    assert summary_of(out)["rounds"] == 4

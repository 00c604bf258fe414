"""`metisfl bench round` at sizes that take no time: its shape, and that every byte of every round was moved."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from metisfl_bench.isolation import memory_cgroup
from metisfl_bench.processes import BenchError
from tests.integration.bench.running import METISFL, SECONDS, bench, run

SMALL = ["--learners", "3", "--parameters", "10000", "--rounds", "2"]


def test_rounds_against_a_bare_stream() -> None:
    result = bench("round", *SMALL)

    assert result["state"] == "Complete"
    assert result["model_bytes"] == 40_000
    # Each learner receives one model and sends one.
    assert result["bytes_moved"] == 2 * 3 * 40_000
    assert len(result["round_seconds"]) == 2
    assert result["round_seconds_min"] <= result["round_seconds_median"]
    assert {"train", "aggregate", "commit"} <= result["phase_seconds"].keys()
    assert result["kernel_seconds_mean"] > 0
    assert result["controller_peak_rss_mb"] > 10
    assert result["fraction_of_stream"] == pytest.approx(result["bytes_per_second"] / result["stream_bytes_per_second"])


def test_a_process_and_a_connection_per_learner_with_checkpoints() -> None:
    result = bench("round", *SMALL, "--process-per-learner", "--connection", "own", "--checkpoint", "--no-stream")

    assert result["state"] == "Complete"
    assert result["bytes_moved"] == 2 * 3 * 40_000
    assert "fraction_of_stream" not in result


def test_mutual_tls_is_compared_with_clear_text() -> None:
    result = bench("round", *SMALL, "--tls", "--no-stream")

    assert result["state"] == "Complete"
    assert result["bytes_moved"] == 2 * 3 * 40_000
    assert result["tls_ratio"] == pytest.approx(result["round_seconds_median"] / result["clear_text_seconds_median"])


def test_a_codec_moves_fewer_bytes() -> None:
    result = bench("round", *SMALL, "--codec", "Int8", "--no-stream")

    assert result["state"] == "Complete"
    # A byte for each parameter, and a scale for each 64.
    assert 2 * 3 * 10_000 * 17 // 16 <= result["bytes_moved"] <= 0.30 * 2 * 3 * 40_000


def test_a_budget_too_small_for_the_model_stages_on_disk() -> None:
    """32 Mi cannot hold what 8 MB of parameters need, which is 4 slots, sums and two models."""
    asked = ["--learners", "2", "--parameters", "2000000", "--rounds", "1", "--memory-budget", "32Mi", "--no-stream"]

    result = bench("round", *asked)

    assert result["state"] == "Complete"
    assert result["bytes_moved"] == 2 * 2 * 8_000_000


def test_in_a_memory_cgroup() -> None:
    limit = 1 << 30
    try:
        with memory_cgroup(limit):
            pass
    except BenchError as error:
        pytest.skip(str(error))

    result = bench("round", *SMALL, "--memory-limit", "1Gi", "--no-stream")

    assert result["state"] == "Complete"
    assert result["memory_limit"] == limit
    assert 10 < result["controller_anonymous_mb"] <= result["controller_peak_rss_mb"] < limit / 1e6


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--codec", "Float8", "is not one of"),
        ("--layout", "cube", "is not one of"),
        ("--memory-limit", "much", "is not a quantity such as 2Gi"),
    ],
)
def test_what_makes_no_sense_is_refused(option: str, value: str, words: str) -> None:
    done = run("round", *SMALL, option, value)

    assert done.returncode == 2
    assert words in done.stderr


def test_a_controller_that_refuses_says_why() -> None:
    done = run("round", *SMALL, "--memory-budget", "plenty")

    assert done.returncode == 1
    assert "memoryBudget" in done.stderr
    assert "Traceback" not in done.stdout


def test_told_to_end_it_takes_its_processes_along(tmp_path: Path) -> None:
    command = [str(METISFL), "bench", "round", "--learners", "2", "--parameters", "10000", "--rounds", "99999"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        for line in running.stderr:
            if line.startswith("round "):
                break
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("metisfl-bench-")]

        running.terminate()

        assert running.wait(SECONDS) == 128 + signal.SIGTERM
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("metisfl-bench-")]

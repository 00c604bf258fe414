"""The arrays, the clock and the errors of the comparison."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compare import arrays, times
from benchmarks.compare.children import CompareError, children
from benchmarks.compare.environments import ROOT, SHORT_WAITS, measure
from benchmarks.compare.plan import Setup
from benchmarks.compare.work import Work, size_name

WORK = Work(3, 20, "uniform16", ((4, 3), (5,), ()), repetitions=4)


@given(
    learners=st.integers(1, 1000),
    shapes=st.lists(st.lists(st.integers(1, 9), max_size=4).map(tuple), min_size=1, max_size=5).map(tuple),
)
def test_work_survives_the_way_to_another_process(learners: int, shapes: tuple[tuple[int, ...], ...]) -> None:
    work = Work(learners, 12_345, "housing", shapes, 3, 7.5)
    assert Work.from_json(work.to_json()) == work
    assert work.elements == sum(np.zeros(shape).size for shape in shapes)


def test_sizes_are_spoken() -> None:
    assert [size_name(25, count) for count in (10_000_000, 100_000, 500)] == ["25 × 10M", "25 × 100k", "25 × 500"]


def test_models_have_the_shapes_and_are_the_same_each_time() -> None:
    first, again = arrays.models(WORK), arrays.models(WORK)
    assert [[array.shape for array in model] for model in first] == [list(WORK.shapes)] * 3
    assert all(array.dtype == np.float32 for model in first for array in model)
    assert arrays.checksum(first) == arrays.checksum(again)
    again[2][1][0] += 1
    assert arrays.checksum(first) != arrays.checksum(again)


def test_errors_are_distances_from_the_exact_mean() -> None:
    inputs = arrays.models(WORK)
    weights = arrays.weights(WORK)

    def exact(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        flat = [
            float(
                sum(Fraction(weight) * Fraction(float(value)) for weight, value in zip(weights, values, strict=True))
                / sum(weights)
            )
            for values in zip(*(model[number].ravel() for model in inputs), strict=True)
        ]
        return np.array(flat).reshape(WORK.shapes[number])

    calls = []

    def average() -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
        calls.append(1)
        result = [exact(number) for number in range(3)]
        result[1][2] += 0.125
        return result

    measured = arrays.measured(WORK, inputs, average, lambda result: result)
    assert len(calls) == 1 + WORK.repetitions == 1 + len(measured["seconds"])
    assert measured["max_abs_error"] == pytest.approx(0.125, rel=1e-12)
    assert measured["max_rel_error"] == pytest.approx(0.125 / abs(exact(1)[2]), rel=1e-9)
    assert measured["seconds_min"] == min(measured["seconds"]) <= measured["seconds_median"]


def _notes(*rounds: tuple[float, float, float]) -> list[dict[str, object]]:
    return [
        {"event": event, "at": at, "replies": 3}
        for times_of_round in rounds
        for event, at in zip(("start", "received", "aggregated"), times_of_round, strict=True)
    ]


def test_rounds_last_from_start_to_start_and_the_first_does_not_count() -> None:
    measured = times.seconds_of(_notes((0, 50, 60), (100, 104, 105), (110, 116, 118), (121, 124, 128)))
    assert measured["seconds"] == [10, 11, 7]
    assert (measured["seconds_min"], measured["seconds_median"]) == (7, 10)
    assert measured["aggregation_seconds_median"] == 2


def test_a_round_that_was_not_finished_ends_the_one_before_only() -> None:
    notes = [*_notes((0, 1, 2), (3, 4, 5), (7, 8, 9)), {"event": "start", "at": 13, "replies": 0}]
    assert times.seconds_of(notes)["seconds"] == [4, 6]


def test_rounds_are_followed_until_enough_or_too_few(tmp_path: Path) -> None:
    path = tmp_path / "times"
    four = _notes((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11))
    path.write_text("".join(json.dumps(note) + "\n" for note in four) + '{"event": "sta')
    with children(tmp_path) as started:
        assert len(times.follow(WORK, path, started, time.monotonic())["seconds"]) == 3
        path.write_text("".join(json.dumps(note) + "\n" for note in four[:9]))
        with pytest.raises(CompareError, match="only 3 rounds"):
            times.follow(WORK, path, started, time.monotonic())
        path.write_text("".join(json.dumps(note | {"replies": 2}) + "\n" for note in four))
        with pytest.raises(CompareError, match="2 of 3 replies"):
            times.follow(WORK, path, started, time.monotonic())


def test_a_child_that_fails_is_named_and_its_log_stays_out_of_the_message(tmp_path: Path) -> None:
    with children(tmp_path) as started:
        started.start(sys.executable, "-c", "raise SystemExit('see /some/path')")
        with pytest.raises(CompareError, match=r"^python\S* ended with status 1$"):
            started.until(lambda: False, time.monotonic() + 60)


def test_children_end_with_all_that_they_started_in_whatever_session(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys; "
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True).pid); "
        "sys.stdout.flush(); input()"
    )
    with children(tmp_path) as started:
        child = started.start(sys.executable, "-c", f"import os; os.dup2(os.pipe()[0], 0); {program}")
        log = tmp_path / "0.log"
        assert started.until(lambda: log.read_text().endswith("\n"), time.monotonic() + 60)
        grandchild = Path(f"/proc/{int(log.read_text())}/environ")
        assert grandchild.read_bytes()
    assert child.returncode is not None
    with contextlib.suppress(OSError):  # Gone, or ended and not waited for.
        assert not grandchild.read_bytes()


def test_a_second_sigterm_does_not_interrupt_the_stopping_of_children() -> None:
    program = """
from benchmarks.compare.children import exit_on_sigterm
import time
exit_on_sigterm()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("stopping", flush=True)
    input()
    print("stopped", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "stopping\n"
        process.terminate()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "stopped\n"
    assert process.returncode == 128 + signal.SIGTERM


def test_short_waits_are_short() -> None:
    program = "import time; t = time.monotonic(); time.sleep(30); print(time.monotonic() - t)"
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(SHORT_WAITS)},
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert 0.1 <= float(output.stdout) < 10


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("""echo noise; echo '{"error": "out of luck"}'""", "^out of luck$"),
        ("exit 3", "^the process ended with status 3$"),
    ],
)
def test_a_system_that_fails_says_why(tmp_path: Path, script: str, words: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    with pytest.raises(CompareError, match=words):
        measure(python, "round", Setup("flower"), WORK)

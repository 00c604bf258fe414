"""The page of benchmarks: figures from files, and plain words where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import page, tables, targets, words
from benchmarks.report.__main__ import PAGE
from benchmarks.suite import plan
from benchmarks.suite.records import RESULTS, Record

MACHINE = {
    "cpu": "Abacus", "cores": 2, "memory_gib": 8.0, "kernel": "6.1", "python": "3.11.9", "versions": {"numpy": "2.0"},
}  # fmt: skip
CODEC = {
    "upload_bytes_of_float32": 1.0,
    "download_bytes_of_float32": 1.0,
    "encode_bytes_per_second": 5e9,
    "decode_bytes_per_second": 6e9,
    "learner_encode_bytes_per_second": 1e9,
    "fold_bytes_per_second": 2e10,
    "max_error_of_bound": 0.0,
    "round_seconds_median": 0.1,
    "shaped_round_seconds_median": 0.8,
}


def aggregate(fraction: float) -> dict[str, Any]:
    return {
        "machine": MACHINE,
        "seconds_median": 0.0272,
        "seconds_min": 0.026,
        "fraction_of_bandwidth": fraction,
        "fraction_of_best": 0.9 * fraction,
        "engine_fraction": 0.41,
        "max_abs_error": 7.4e-9,
        "max_relative_error": 6e-8,
    }


def round_(seconds: float) -> dict[str, Any]:
    return {
        "machine": MACHINE,
        "model_bytes": 40_000_000,
        "memory_budget": None,
        "memory_limit": None,
        "round_seconds_median": seconds,
        "round_seconds_min": 0.9 * seconds,
        "bytes_per_second": 2e9,
        "fraction_of_stream": 0.75,
        "controller_peak_rss_mb": 512.3,
        "controller_anonymous_mb": 410.0,
        "phase_seconds": {"train": 0.08, "aggregate": 0.004},
        "kernel_seconds_mean": 0.011,
    }


FANIN = {
    "machine": MACHINE,
    "connections": 10_000,
    "parameters": 10_000,
    "learners": 10_000,
    "participants": 1_000,
    "connect_seconds": 31.0,
    "bytes_per_connection_idle": 50 * 1024,
    "bytes_per_connection_after_round": 201 * 1024,
    "round_of_all_seconds": 9.0,
    "round_seconds_median": 1.0,
    "bare_seconds_median": 0.6,
    "fraction_of_bare": 0.6,
}


def write(folder: Path, name: str, result: dict[str, Any]) -> None:
    Record("metisfl bench …", "2026-01-02", result).write(folder, name)


def row(table: str, start: str) -> list[str]:
    [line] = [line for line in table.splitlines() if line.startswith(f"| {start} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def reached(folder: Path) -> dict[str, bool | None]:
    return {target.what: target.reached for target in targets.targets(folder)}


def test_figures_come_from_the_files(tmp_path: Path) -> None:
    write(tmp_path, "aggregate-25x10M-uniform16", aggregate(0.93))
    write(tmp_path, "round-25x1M", round_(0.1))
    write(tmp_path, "fanin", FANIN)
    write(tmp_path, "codecs", {"machine": MACHINE, "shaped": "1gbit", "codecs": {"Float32": CODEC}})

    assert row(tables.aggregate(tmp_path), "25 × 10M | uniform16")[2:] == [
        "27.2 ms", "26 ms", "93 %", "84 %", "41 %", "82 ms", "7.4e-09", "6.0e-08",
    ]  # fmt: skip
    # MetisFL's took 237 ms.
    assert row(tables.rounds(tmp_path), "25 × 1M")[1:] == [
        "100 ms", "90 ms", "237 ms", "2.4 ×", "2 GB/s", "75 %", "512 MB",
    ]  # fmt: skip
    assert row(tables.phases(tmp_path), "25 × 1M") == ["25 × 1M", "80 ms", "4 ms", "11 ms"]
    assert row(tables.fanin(tmp_path), "A round of 1,000 learners × 10k")[1] == "1 s"
    assert row(tables.codecs(tmp_path), "Float32")[-2:] == ["100 ms", "800 ms"]
    assert tables.machines(tmp_path).count("Abacus, 2 cores") == 1


def test_large_models_tell_all_their_memory(tmp_path: Path) -> None:
    limited = {**round_(9.0), "model_bytes": 400_000_000, "memory_budget": "3Gi", "memory_limit": 3584 << 20}
    write(tmp_path, "large-10x100M", limited)
    write(tmp_path, "large-50x10M", round_(2.0))

    table = tables.large(tmp_path)

    assert row(table, "10 × 100M")[1:] == ["400 MB", "3Gi", "3584 MiB", "9 s", "512 MB", "410 MB"]
    assert row(table, "50 × 10M")[1:] == ["40 MB", "by default", "none", "2 s", "512 MB", "410 MB"]


def test_what_is_missing_or_failed_says_so(tmp_path: Path) -> None:
    Record("metisfl bench …", "2026-01-02", failed="exit status 1").write(tmp_path, "large-4x1B")

    table = tables.large(tmp_path)

    assert row(table, "4 × 1B")[1] == "did not complete: exit status 1"
    assert row(table, "10 × 100M")[1] == "not measured yet"
    assert len({line.count("|") for line in table.splitlines()}) == 1
    assert reached(tmp_path)["round 4 × 1B in a memory cgroup of 2560Mi"] is False
    assert reached(tmp_path)["round 10 × 100M in a memory cgroup of 3584Mi"] is None


def test_targets_are_judged_by_the_worst_layout_and_only_when_all_are_measured(tmp_path: Path) -> None:
    what = "aggregate 25 × 10M, worst layout: of read bandwidth"
    write(tmp_path, "aggregate-25x10M-uniform16", aggregate(0.95))
    write(tmp_path, "aggregate-25x10M-skewed16", aggregate(0.91))
    assert reached(tmp_path)[what] is None
    write(tmp_path, "aggregate-25x10M-housing", aggregate(0.90))
    assert reached(tmp_path)[what] is True
    write(tmp_path, "aggregate-25x10M-skewed16", aggregate(0.89))
    assert reached(tmp_path)[what] is False


@pytest.mark.parametrize(("seconds", "expected"), [(0.118, True), (0.119, False)])
def test_rounds_are_to_take_half_of_metisfls_time(tmp_path: Path, seconds: float, expected: bool) -> None:
    write(tmp_path, "round-25x1M", round_(seconds))

    assert reached(tmp_path)["round 25 × 1M: half of MetisFL C++"] is expected


def test_memory_of_connections_is_judged_in_kib(tmp_path: Path) -> None:
    write(tmp_path, "fanin", FANIN)

    assert reached(tmp_path)["fan-in: memory of an idle connection"] is True
    assert reached(tmp_path)["fan-in: memory of a connection after a round"] is False
    assert reached(tmp_path)["fan-in: a round, of bare calls"] is True


def test_plots_are_the_same_for_the_same_results_and_lie_beside_the_page(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write(results, "aggregate-25x10M-uniform16", aggregate(0.93))
    write(results, "round-25x1M", round_(0.1))
    write(results, "codecs", {"machine": MACHINE, "shaped": "1gbit", "codecs": {"Float32": CODEC, "Int8": CODEC}})
    for place in ("first", "second"):
        page.write(results, tmp_path / place / "benchmarks.md")

    text = (tmp_path / "first" / "benchmarks.md").read_text()
    assert text == (tmp_path / "second" / "benchmarks.md").read_text()
    for name in ("bench-aggregate", "bench-round", "bench-codecs"):
        assert f"](images/{name}.svg)" in text
        plots = [tmp_path / place / "images" / name for place in ("first", "second")]
        assert plots[0].with_suffix(".svg").read_bytes() == plots[1].with_suffix(".svg").read_bytes()
        assert plots[0].with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_names_of_measurements_are_those_that_tables_look_for() -> None:
    names = [measurement.name for measurement in plan.measurements()]

    assert len(names) == len(set(names))
    for learners, size, _ in plan.VARIED:
        # Variations stand below the plain round of the same size.
        assert plan.round_name(learners, size) in names
    files = {path.stem for path in RESULTS.glob("*.json") if not path.stem.startswith("compare-")}
    assert files <= set(names), "results of benchmarks that are not in benchmarks/suite/plan.py"


def test_the_page_is_that_of_the_results(tmp_path: Path) -> None:
    """`make bench-report` was run after the last change of results, template or tables."""
    assert page.render(RESULTS, tmp_path / "images") == PAGE.read_text()


@pytest.mark.parametrize(
    ("value", "text"), [(12.345, "12.3 s"), (0.1, "100 ms"), (0.00151, "1.51 ms"), (5.86e-5, "58.6 µs")]
)
def test_seconds_have_three_digits_and_a_unit_that_fits(value: float, text: str) -> None:
    assert words.seconds(value) == text

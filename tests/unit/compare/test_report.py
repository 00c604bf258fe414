"""The comparison's tables and plots, made from sample results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compare.report import section
from benchmarks.compare.results import Results, file_of
from benchmarks.compare.series import spoken
from tests.unit.compare import samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    samples.aggregations().write(file_of(tmp_path, "aggregate"))
    samples.rounds().write(file_of(tmp_path, "round"))
    return tmp_path


def test_results_come_back_as_they_were_written(folder: Path) -> None:
    assert Results.read(file_of(folder, "aggregate")) == samples.aggregations()
    assert Results.read(file_of(folder, "round")) == samples.rounds()


def test_tables_hold_medians_minima_and_ratios(folder: Path) -> None:
    rows = [line for line in section(folder, folder / "images").splitlines() if line.startswith("| 25 × 1M")]
    assert rows == [
        "| 25 × 1M | uniform16 | 25 ms (20 ms) | 125 ms (100 ms) × 5.0 | 100 ms (80 ms) × 4.0 |",
        "| 25 × 1M | housing | 25 ms (20 ms) | 125 ms (100 ms) × 5.0 | 100 ms (80 ms) × 4.0 |",
        "| 25 × 1M | 250 ms (200 ms) | — (only 1 rounds were done within 300 s, start included) | 3 s (2.4 s) × 12 |",
    ]


def test_errors_versions_machine_and_command_are_told(folder: Path) -> None:
    text = section(folder, folder / "images")
    assert "| Flower: aggregate | 2.5e-09 | 5.0e-07 |" in text
    assert "Some CPU, 2 cores, 8.0 GiB, Python 3.11.7; 3 repetitions" in text
    assert "flwr 1.42.0, numpy 2.4.6; nvflare 2.9.0." in text
    assert "`python -m benchmarks.compare`" in text


def test_plots_are_drawn_twice_the_same_and_named_in_the_text(folder: Path) -> None:
    text = section(folder, folder / "images")
    drawn = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
    assert sorted(drawn) == ["compare-aggregate.png", "compare-aggregate.svg", "compare-round.png", "compare-round.svg"]
    assert "](images/compare-aggregate.svg)" in text
    assert "](images/compare-round.svg)" in text
    assert drawn["compare-aggregate.png"].startswith(b"\x89PNG")
    for words in ("NVIDIA FLARE: WeightedAggregationHelper", "housing", "125 ms"):
        assert words.encode() in drawn["compare-aggregate.svg"]
    section(folder, folder / "images")
    assert (folder / "images" / "compare-round.svg").read_bytes() == drawn["compare-round.svg"]


def test_one_of_the_files_is_enough_and_none_is_an_error(folder: Path) -> None:
    file_of(folder, "round").unlink()
    assert "Whole rounds" not in section(folder, folder / "images")
    file_of(folder, "aggregate").unlink()
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.compare"):
        section(folder, folder / "images")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.00056, "560 µs"), (0.0251, "25.1 ms"), (1.0, "1 s"), (22.04, "22 s"), (1200.0, "1,200 s")]
)
def test_durations_have_a_unit_that_fits(seconds: float, words: str) -> None:
    assert spoken(seconds) == words

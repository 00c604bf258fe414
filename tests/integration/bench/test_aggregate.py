"""`metisfl bench aggregate` at sizes that take no time: its shape, and that the mean is right."""

from __future__ import annotations

import pytest

from tests.integration.bench.running import bench, run

HOUSING_32 = (8 * 32 + 32) + 100 * (32 * 32 + 32) + (32 + 1)


@pytest.mark.parametrize(
    ("layout", "parameters"), [("uniform16", 100_003), ("skewed16", 100_003), ("housing", HOUSING_32)]
)
def test_the_mean_is_right_whole_and_through_the_engine(layout: str, parameters: int) -> None:
    asked = ["--learners", "9", "--parameters", "100003", "--layout", layout, "--rounds", "2"]

    result = bench("aggregate", *asked)

    assert (result["learners"], result["parameters"], result["layout"]) == (9, parameters, layout)
    assert result["input_bytes"] >= 9 * 4 * parameters
    assert len(result["seconds"]) == 2
    assert 0 < result["seconds_min"] <= result["seconds_median"]
    assert result["fraction_of_bandwidth"] > 0
    assert result["engine_fraction"] > 0
    # Half a unit in the last place of float32 at 0.25, which the mean of nine N(0, 1) × 0.1 rarely exceeds.
    assert 0 < result["max_abs_error"] <= 2e-8
    assert 0 < result["max_relative_error"] <= 2**-23


def test_one_thread() -> None:
    assert bench("aggregate", "--learners", "2", "--parameters", "1000", "--threads", "1")["threads"] == 1


def test_without_json_there_is_a_table_for_people() -> None:
    done = run("aggregate", "--learners", "2", "--parameters", "1000", "--rounds", "1")

    assert done.returncode == 0, done.stderr
    assert "fraction_of_bandwidth" in done.stdout
    assert "measuring how fast memory is read" in done.stderr

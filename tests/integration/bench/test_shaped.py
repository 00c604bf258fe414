"""A shaped link is as slow as asked for. That it is slower still on a busy machine is not judged."""

from __future__ import annotations

import pytest

from metisfl_bench.isolation import network
from metisfl_bench.processes import BenchError
from tests.integration.bench.running import bench

RATE = 100e6 / 8
BURST = 256 * 1024


def test_a_round_over_a_shaped_link_takes_the_time_of_its_bytes() -> None:
    try:
        with network("100mbit"):
            pass
    except BenchError as error:
        pytest.skip(str(error))
    result = bench("round", "--learners", "2", "--parameters", "500000", "--rounds", "2", "--shaped", "100mbit")
    assert result["state"] == "Complete"
    each_way = result["bytes_moved"] / 2
    assert each_way == 2 * 2_000_000
    # Each direction on its own, as they may overlap.
    assert result["round_seconds_min"] >= (each_way - BURST) / RATE
    assert "fraction_of_stream" not in result, "the bare stream does not go over the shaped link"

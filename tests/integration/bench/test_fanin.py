"""`metisfl bench fanin`, small: what it says is there and hangs together. Times and memory are not judged."""

from __future__ import annotations

import pytest

from tests.integration.bench.running import bench


def test_fanin_in_a_codec_that_sends_updates() -> None:
    result = bench(
        "fanin", "--learners", "12", "--participants", "6", "--parameters", "1000", "--rounds", "2",
        "--load-processes", "3", "--codec", "Int8",
    )  # fmt: skip
    assert (result["connections"], result["participants"], result["parameters"]) == (12, 6, 1000)
    assert len(result["round_seconds"]) == len(result["bare_seconds"]) == 2
    assert min(*result["round_seconds"], *result["bare_seconds"]) > 0
    assert result["fraction_of_bare"] == pytest.approx(result["bare_seconds_median"] / result["round_seconds_median"])
    assert 0 < result["controller_rss_mb_alone"] < result["controller_rss_mb_after_round"]
    assert result["bytes_per_connection_after_round"] == pytest.approx(
        1e6 * (result["controller_rss_mb_after_round"] - result["controller_rss_mb_alone"]) / 12
    )
    assert result["round_of_all_seconds"] > 0

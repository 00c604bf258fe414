"""`metisfl bench codecs`, small: bytes and errors are judged, times are not."""

from __future__ import annotations

import pytest

from metisfl.wire.codecs import Codec
from tests.integration.bench.running import bench, run


def test_every_codec_in_rounds_over_loopback() -> None:
    result = bench(
        "codecs", "--learners", "2", "--parameters", "64000", "--layout", "skewed16", "--rounds", "1", "--no-shaped"
    )
    figures = result["codecs"]
    assert list(figures) == [str(codec) for codec in Codec]
    # 16, 16 and 8 + 32/64 of 32 bits; TopK keeps a tenth, with indices, and goes down as Float32.
    up = {"Float32": 1.0, "BFloat16": 0.5, "Float16": 0.5, "Int8": 0.265625, "TopK": 0.2}
    down = {**up, "TopK": 1.0}
    model = result["model_bytes"]
    assert model == 256_000
    for codec, figure in figures.items():
        assert figure["upload_bytes_of_float32"] == pytest.approx(up[codec], rel=0.01)
        assert figure["download_bytes_of_float32"] == pytest.approx(down[codec], rel=0.01)
        assert figure["bytes_moved"] == pytest.approx(2 * model * (up[codec] + down[codec]), rel=0.01)
        assert 0 <= figure["max_error_of_bound"] <= 1
        assert figure["round_seconds_median"] > 0
        assert all(value > 0 for key, value in figure.items() if key.endswith("bytes_per_second"))
        assert "shaped_round_seconds_median" not in figure
    assert figures["Float32"]["max_error_of_bound"] == 0
    assert figures["Int8"]["max_error_of_bound"] > 0.5


def test_one_codec_for_people() -> None:
    done = run("codecs", "--codec", "Int8", "--learners", "2", "--parameters", "64000", "--rounds", "1", "--no-shaped")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines()]
    assert ["upload_bytes_of_float32", "0.2656"] in rows
    assert ["parameters", "64,000"] in rows
    assert "Float32" not in done.stdout

"""The bounds that codecs are measured against, by hand-made numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metisfl.wire.codecs import Codec
from metisfl_bench.codec_bounds import share_of_bound


def doubles(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, np.float64)


@pytest.mark.parametrize(
    ("codec", "exact", "allowed"),
    [
        (Codec.BFLOAT16, 1.0, 2.0**-8),
        (Codec.BFLOAT16, -12.0, 12 * 2.0**-8),
        (Codec.FLOAT16, 3.0, 3 * 2.0**-11),
        (Codec.FLOAT16, 2.0**-20, 2.0**-25),
        (Codec.INT8, 127.0, 0.5 + 2.0**-16),
    ],
)
def test_an_error_is_taken_as_a_share_of_what_is_allowed(codec: Codec, exact: float, allowed: float) -> None:
    assert share_of_bound(codec, doubles(exact), doubles(exact)) == 0
    assert share_of_bound(codec, doubles(exact), doubles(exact + allowed / 2)) == pytest.approx(0.5)
    assert share_of_bound(codec, doubles(exact), doubles(exact - 3 * allowed)) == pytest.approx(3)


def test_int8_allows_by_blocks_of_64() -> None:
    exact = np.concatenate((np.full(64, 127.0), np.full(64, 1270.0), [12.7]))
    decoded = exact + 0.5
    shares = [0.5 / (0.5 + 2**-16), 0.05 / (0.5 + 2**-16), 5 / (0.5 + 2**-16)]
    assert share_of_bound(Codec.INT8, exact, decoded) == pytest.approx(max(shares))
    assert share_of_bound(Codec.INT8, exact[:128], decoded[:128]) == pytest.approx(shares[0])
    assert share_of_bound(Codec.INT8, exact[64:128], decoded[64:128]) == pytest.approx(shares[1])


def test_float32_allows_nothing() -> None:
    assert share_of_bound(Codec.FLOAT32, doubles(1, 2), doubles(1, 2)) == 0
    assert math.isinf(share_of_bound(Codec.FLOAT32, doubles(1, 2), doubles(1, np.nextafter(2, 3))))


def test_topk_sends_the_largest_exactly() -> None:
    exact = doubles(3, -1, 2, 0.5)
    assert share_of_bound(Codec.TOPK, exact, doubles(3, 0, 2, 0)) == 0.5
    assert share_of_bound(Codec.TOPK, exact, doubles(3, -1, 0, 0)) == 2
    assert math.isinf(share_of_bound(Codec.TOPK, exact, doubles(3, 0, 2.1, 0)))

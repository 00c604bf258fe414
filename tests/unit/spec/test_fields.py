"""Quantities, as Kubernetes reads them."""

from __future__ import annotations

import pytest

from metisfl.spec.fields import quantity_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        ("2k", 2000),
        ("2Ki", 2048),
        ("512Mi", 512 * 1024**2),
        ("512M", 512 * 1000**2),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("4Gi", 4 * 1024**3),
        ("2T", 2 * 1000**4),
        ("1Ti", 1024**4),
        ("3P", 3 * 1000**5),
        ("1.001M", 1_001_000),
        ("0.0015k", 1),
        # Forms that the spec does not take, and the API server has.
        ("1e9", 10**9),
        ("1E3", 1000),
        ("2E", 2 * 10**18),
        ("1Ei", 1024**6),
        ("1074815565824m", 1_074_815_565),
        ("5000000u", 5),
        ("7000000000n", 7),
    ],
)
def test_bytes_of_a_quantity(text: str, expected: int) -> None:
    assert quantity_bytes(text) == expected

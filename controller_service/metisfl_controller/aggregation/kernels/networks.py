"""Sorting networks: which rows to compare, and in which order, so that afterwards row r holds every column's r-th
smallest value. The same comparisons serve all columns, so they are done side by side on vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]


def sorting_network(rows: int, low: int, high: int) -> Pairs:
    """Comparators (c, 2) that bring ranks `low` … `high` (exclusive) of `rows` values into place; other ranks may stay
    unsorted on their sides. Each puts the smaller value into its first row.

    Merge exchange (Batcher 1968; Knuth, The Art of Computer Programming 5.2.2, algorithm M), for any number of rows:
    about rows · log2(rows)² / 4 comparators, of which those that no wanted rank depends on are left out.
    """
    wanted = np.zeros(rows, np.bool_)
    wanted[low:high] = True
    needed = []
    for stage in reversed(_merge_exchange(rows)):
        stage = stage[wanted[stage].any(axis=1)]
        wanted[stage] = True
        needed.append(stage)
    return np.ascontiguousarray(np.concatenate([np.empty((0, 2), np.int64), *reversed(needed)]))


def _merge_exchange(rows: int) -> list[Pairs]:
    """Stages of comparators; those of one stage have no row in common."""
    stages = []
    half = 1 << max(0, (rows - 1).bit_length() - 1)
    p = half
    while p and rows > 1:
        q, r, distance = half, 0, p
        while True:
            first = np.arange(rows - distance)
            first = first[first & p == r]
            stages.append(np.stack([first, first + distance], axis=1))
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2
    return stages

"""How fast this machine reads memory: what the fold is measured against. Used by benchmarks only."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Singles = NDArray[np.float32]


@njit(nogil=True, fastmath=True)
def _sum(part: Singles) -> Any:
    total = np.float32(0)
    for i in range(part.size):
        total += part[i]
    return total


@njit(nogil=True, fastmath=True)
def _sum_of_four(part: Singles) -> Any:
    """Four streams at a time."""
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    quarter = part.size // 4
    for i in range(quarter):
        a += part[i]
        b += part[quarter + i]
        c += part[2 * quarter + i]
        d += part[3 * quarter + i]
    return a + b + c + d + _sum(part[4 * quarter :])


@njit(nogil=True, fastmath=True)
def _sum_of_eight(part: Singles) -> Any:
    """Eight streams at a time, as the fold reads."""
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    n = part.size // 8
    for i in range(n):
        a += part[i] + part[n + i]
        b += part[2 * n + i] + part[3 * n + i]
        c += part[4 * n + i] + part[5 * n + i]
        d += part[6 * n + i] + part[7 * n + i]
    return a + b + c + d + _sum(part[8 * n :])


@njit(parallel=True, nogil=True, cache=True)
def _read(values: Singles, streams: int, pieces: int) -> Any:
    total = np.float32(0)
    size = (values.size + pieces - 1) // pieces
    for piece in prange(pieces):
        part = values[piece * size : (piece + 1) * size]
        if streams == 1:
            total += _sum(part)
        elif streams == 4:
            total += _sum_of_four(part)
        else:
            total += _sum_of_eight(part)
    return total


def read_bandwidth(nbytes: int, repetitions: int = 5) -> float:
    """Bytes per second: the best of several ways to sum `nbytes` of float32, with the threads of the kernels, each
    tried `repetitions` times. Take at least eight times the last-level cache."""
    values = np.ones(nbytes // 4, np.float32)
    best = float("inf")
    for streams in (1, 4, 8):
        for size in (1 << 16, 1 << 20, values.size // 64):
            pieces = max(1, values.size // max(1, size))
            _read(values[:1024], streams, 1)
            for _ in range(repetitions):
                started = time.perf_counter()
                total = _read(values, streams, pieces)
                best = min(best, time.perf_counter() - started)
                assert total > 0
    return values.nbytes / best

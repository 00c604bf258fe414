"""How fast this machine reads memory: what the fold is measured against. Used by benchmarks only."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from metisfl.wire.layout import aligned_zeros

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


class ReadProbe:
    """Reads the same memory over and over, with the threads of the kernels."""

    def __init__(self, nbytes: int) -> None:
        """Take at least eight times the last-level cache."""
        self._values = aligned_zeros(nbytes // 4 * 4).view(np.float32)
        self._values[:] = 1
        size = self._values.size
        self.best = 0.0
        """Bytes per second, the most so far."""
        _read(self._values[:1024], 1, 1)  # compiles
        ways = [
            (streams, max(1, size // max(1, piece)))
            for streams in (1, 4, 8)
            for piece in (1 << 16, 1 << 20, size // 64)
        ]
        self._fastest = min(ways, key=lambda way: min(self._seconds(way) for _ in range(5)))

    def read(self, nbytes: int) -> float:
        """Bytes per second at this moment, of reading at least `nbytes` in the way that was the fastest at first."""
        times = -(-nbytes // self._values.nbytes)
        return times * self._values.nbytes / sum(self._seconds(self._fastest) for _ in range(times))

    def _seconds(self, way: tuple[int, int]) -> float:
        streams, pieces = way
        started = time.perf_counter()
        total = _read(self._values, streams, pieces)
        seconds = time.perf_counter() - started
        assert total > 0
        self.best = max(self.best, self._values.nbytes / seconds)
        return seconds

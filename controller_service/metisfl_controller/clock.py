"""Seconds since the epoch that never go back."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


def steady_clock() -> Clock:
    """Reads as wall-clock time at its start and advances with the monotonic clock, so that leases and deadlines survive
    a corrected system clock and the same numbers can be shown to people."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset

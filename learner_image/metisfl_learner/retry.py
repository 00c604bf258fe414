"""When to try again, and how long to wait before it.

Pure: the clock and the random numbers are passed in, nothing here sleeps.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import grpc

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 8.0

# The controller understood the call and will not change its mind.
REFUSALS = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class Backoff:
    """Jittered exponential delays, until nothing has been heard for `give_up_after` seconds.

    Delays grow from FIRST_DELAY_SECONDS to LONGEST_DELAY_SECONDS, each drawn from the upper half of its range so that
    many learners do not come back at the same moment. They start from the shortest again when all has been well for
    longer than the last delay.
    """

    def __init__(
        self,
        give_up_after: float,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._give_up_after = give_up_after
        self._clock = clock
        self._uniform = uniform
        self._last_contact = clock()
        self._failures = 0
        self._delay = 0.0
        self._retried_at = -math.inf

    @property
    def silent_seconds(self) -> float:
        """Seconds since the other side was last heard."""
        return self._clock() - self._last_contact

    def contact(self) -> None:
        """The other side answered."""
        self._last_contact = self._clock()

    def start_over(self) -> None:
        """The next delay is the shortest again."""
        self._failures = 0

    def delay(self) -> float | None:
        """Seconds to wait after a failure; None when it is time to give up."""
        now = self._clock()
        if now - self._last_contact >= self._give_up_after:
            return None
        if now - self._retried_at > self._delay:
            self._failures = 0
        longest = min(FIRST_DELAY_SECONDS * 2.0**self._failures, LONGEST_DELAY_SECONDS)
        self._failures = min(self._failures + 1, 16)
        self._delay = self._uniform(longest / 2, longest)
        self._retried_at = now + self._delay
        return self._delay

"""Delays between attempts, on a clock that the test moves."""

from __future__ import annotations

from metisfl_learner.retry import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, Backoff


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def longest(low: float, high: float) -> float:
    return high


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(1e9, Clock(), longest)
    delays = [backoff.delay() for _ in range(8)]
    assert delays == [min(FIRST_DELAY_SECONDS * 2**n, LONGEST_DELAY_SECONDS) for n in range(8)]


def test_delays_are_drawn_from_the_upper_half() -> None:
    drawn = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    Backoff(1e9, Clock(), uniform).delay()
    assert drawn == [(FIRST_DELAY_SECONDS / 2, FIRST_DELAY_SECONDS)]


def test_gives_up_after_silence() -> None:
    clock = Clock()
    backoff = Backoff(300, clock, longest)
    clock.now += 299
    assert backoff.delay() is not None
    clock.now += 1
    assert backoff.delay() is None
    assert backoff.silent_seconds == 300


def test_contact_puts_giving_up_off() -> None:
    clock = Clock()
    backoff = Backoff(300, clock, longest)
    clock.now += 299
    backoff.contact()
    clock.now += 299
    assert backoff.delay() is not None


def test_contact_alone_does_not_shorten_delays() -> None:
    """Two processes that take the lease from each other both have contact all the time."""
    backoff = Backoff(300, Clock(), longest)
    backoff.delay()
    backoff.contact()
    assert backoff.delay() == 2 * FIRST_DELAY_SECONDS


def test_failure_after_a_long_quiet_time_starts_over() -> None:
    clock = Clock()
    backoff = Backoff(300, clock, longest)
    for _ in range(5):
        backoff.delay()
    clock.now += 2 * LONGEST_DELAY_SECONDS + 1
    assert backoff.delay() == FIRST_DELAY_SECONDS

"""Delays between attempts, on a clock that the test moves."""

from __future__ import annotations

import pytest

from metisfl_learner.retry import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, Backoff


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def longest(low: float, high: float) -> float:
    return high


@pytest.fixture
def clock() -> Clock:
    return Clock()


def attempts(backoff: Backoff, clock: Clock, count: int, takes: float = 0.0) -> list[float]:
    """Delays before `count` attempts that follow each other and fail after `takes` seconds."""
    delays = []
    for _ in range(count):
        delay = backoff.delay()
        assert delay is not None
        delays.append(delay)
        clock.now += delay + takes
    return delays


def test_delays_double_up_to_the_longest(clock: Clock) -> None:
    delays = attempts(Backoff(1e9, clock, longest), clock, 8)
    assert delays == [min(FIRST_DELAY_SECONDS * 2**n, LONGEST_DELAY_SECONDS) for n in range(8)]


def test_delays_are_drawn_from_the_upper_half(clock: Clock) -> None:
    drawn = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    Backoff(1e9, clock, uniform).delay()
    assert drawn == [(FIRST_DELAY_SECONDS / 2, FIRST_DELAY_SECONDS)]


def test_gives_up_after_silence(clock: Clock) -> None:
    backoff = Backoff(300, clock, longest)
    clock.now += 299
    assert backoff.delay() is not None
    clock.now += 1
    assert backoff.delay() is None
    assert backoff.silent_seconds == 300


def test_contact_puts_giving_up_off(clock: Clock) -> None:
    backoff = Backoff(300, clock, longest)
    clock.now += 299
    backoff.contact()
    clock.now += 299
    assert backoff.delay() is not None


def test_contact_alone_does_not_shorten_delays(clock: Clock) -> None:
    """A controller may answer each time and break off right after."""
    backoff = Backoff(300, clock, longest)
    attempts(backoff, clock, 3)
    backoff.contact()
    assert backoff.delay() == FIRST_DELAY_SECONDS * 2**3


@pytest.mark.parametrize(("well_for", "expected"), [(0.9, FIRST_DELAY_SECONDS * 2**4), (1.1, FIRST_DELAY_SECONDS)])
def test_delays_start_over_when_all_was_well_for_longer_than_the_last(
    clock: Clock, well_for: float, expected: float
) -> None:
    backoff = Backoff(300, clock, longest)
    last = attempts(backoff, clock, 4)[-1]
    clock.now += well_for * last
    assert backoff.delay() == expected


def test_delays_start_over_on_request(clock: Clock) -> None:
    backoff = Backoff(300, clock, longest)
    attempts(backoff, clock, 4)
    backoff.start_over()
    assert attempts(backoff, clock, 2) == [FIRST_DELAY_SECONDS, 2 * FIRST_DELAY_SECONDS]

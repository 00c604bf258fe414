"""Federations are looked at without any event, and a watch that fell behind is noticed."""

from __future__ import annotations

from typing import Any

import kopf
import pytest

from metisfl_operator.main import watch_lag
from metisfl_operator.pokes import Key
from metisfl_operator.resync import QUIET_SECONDS, STALE_SECONDS, Resync, Seen, seen

A, B = ("ns", "a"), ("ns", "b")


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.index: dict[Key, Seen] = {}
        self.poked: list[Key] = []
        self.resync = Resync(
            lambda: self.index,
            self.poked.append,
            kube=None,
            namespaces=(),
            monotonic=lambda: self.now,  # type: ignore[arg-type]
        )


def listed(key: Key, generation: int) -> dict[str, Any]:
    return {"metadata": {"namespace": key[0], "name": key[1], "generation": generation}}


def test_active_ones_are_poked_every_time_and_quiet_ones_now_and_then() -> None:
    world = World()
    world.index = {A: Seen(1, quiet=False), B: Seen(1, quiet=True)}
    world.resync.walk()
    world.resync.walk()
    assert world.poked == [A, B, A]
    world.now += QUIET_SECONDS
    world.resync.walk()
    assert world.poked == [A, B, A, A, B]


@pytest.mark.parametrize("generation", [2, 3])
def test_a_watch_that_is_up_to_date_does_not_lag(generation: int) -> None:
    world = World()
    world.index = {A: Seen(3, quiet=False)}
    world.resync.audit([listed(A, generation)])
    world.now += 500
    assert world.resync.lag_seconds() == 0


@pytest.mark.parametrize("index", [{}, {A: Seen(2, quiet=False)}], ids=["unseen", "outdated"])
def test_a_watch_that_missed_something_lags_until_it_catches_up(index: dict[Key, Seen]) -> None:
    world = World()
    world.index = index
    world.resync.audit([listed(A, 3)])
    world.now += 60
    world.resync.audit([listed(A, 3)])
    world.now += 60
    assert world.resync.lag_seconds() == 120
    world.index = {A: Seen(3, quiet=False)}
    world.resync.audit([listed(A, 3)])
    assert world.resync.lag_seconds() == 0


def test_the_probe_fails_when_the_watch_is_stale() -> None:
    world = World()
    memo = kopf.Memo(runtime=kopf.Memo(resync=world.resync))
    assert watch_lag(memo=memo) == 0
    world.resync.audit([listed(A, 1)])
    world.now += STALE_SECONDS + 1
    with pytest.raises(kopf.PermanentError, match="behind the API server for 181 seconds"):
        watch_lag(memo=memo)


@pytest.mark.parametrize(
    ("conditions", "quiet", "state"),
    [
        ([], False, "waiting"),
        ([("Complete", "False", "InProgress", 2)], False, "waiting"),
        ([("Complete", "True", "MaxRoundsReached", 2)], True, "complete"),
        ([("Complete", "True", "MaxRoundsReached", 1)], False, "complete"),
        ([("Failed", "True", "QuorumNotReached", 2)], True, "failed"),
        ([("Suspended", "True", "Suspended", 2)], True, "suspended"),
        ([("Progressing", "False", "InvalidSpec", 2)], True, "waiting"),
        ([("Progressing", "True", "Training", 2)], False, "progressing"),
    ],
)
def test_what_is_quiet_and_how_it_stands(conditions: list[tuple[str, str, str, int]], quiet: bool, state: str) -> None:
    status = {
        "conditions": [
            {
                "type": kind,
                "status": holds,
                "reason": reason,
                "observedGeneration": generation,
                "lastTransitionTime": "2024-05-01T10:00:00Z",
                "message": "words",
            }
            for kind, holds, reason, generation in conditions
        ]
    }
    assert seen({"metadata": {"generation": 2}, "status": status}) == Seen(2, quiet, state)

"""What a system notes while its rounds run, one JSON object a line, and the seconds that follow from it."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.compare.children import Children, CompareError
from benchmarks.compare.output import tell
from benchmarks.compare.work import Work

ENOUGH = 3
"""Rounds to count when time runs out before all are done."""

Notes = list[dict[str, Any]]


def read(path: Path) -> Notes:
    """All complete lines so far: {"event": "start" | "received" | "aggregated", "at": seconds, "replies": number}; of
    a round's two last events, the first has the number of replies."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def follow(
    work: Work, path: Path, started: Children, deadline: float, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Wait for a round that warms up and `work.repetitions` more, and return their seconds. `check` is called now and
    then meanwhile; it may raise.

    When the monotonic `deadline` comes first, those that are done count if they are ENOUGH. Raises CompareError
    otherwise, and when a process has failed or a reply was lost.
    """
    done = 0

    def further() -> bool:
        check()
        return _done(path) > done

    while done <= work.repetitions:
        if not started.until(further, deadline):
            break
        done = _done(path)
        tell(f"round {done} of {work.repetitions + 1}")
    if done <= min(ENOUGH, work.repetitions):
        raise CompareError(f"only {done} rounds were done within {work.seconds:g} s, start included")
    notes = read(path)
    for note in notes:
        if note["event"] == "received" and note["replies"] != work.learners:
            raise CompareError(f"{note['replies']} of {work.learners} replies arrived in a round")
    return seconds_of(notes)


def seconds_of(notes: Notes) -> dict[str, Any]:
    """Seconds of the rounds after the first, from the start of one to the start of the next; the last ends with its
    aggregation. `aggregation_seconds_median`: from the last reply to the new model."""
    at = {
        event: [note["at"] for note in notes if note["event"] == event] for event in ("start", "received", "aggregated")
    }
    rounds = len(at["aggregated"])
    borders = at["start"][: rounds + 1] if len(at["start"]) > rounds else [*at["start"], at["aggregated"][-1]]
    cycles = [after - before for before, after in itertools.pairwise(borders)][1:]
    aggregations = [after - before for before, after in zip(at["received"], at["aggregated"], strict=False)][1:]
    return {
        "seconds_min": min(cycles),
        "seconds_median": statistics.median(cycles),
        "seconds": cycles,
        "aggregation_seconds_median": statistics.median(aggregations),
    }


def _done(path: Path) -> int:
    return sum(note["event"] == "aggregated" for note in read(path))

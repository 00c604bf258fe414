"""What a system notes while its rounds run, one JSON object a line, and the seconds that follow from it."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """All complete lines so far: {"event": "start" | "received" | "aggregated", "at": seconds}."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def count(path: Path, event: str) -> int:
    return sum(note["event"] == event for note in read(path))


def seconds_of(notes: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of the rounds after the first, from the start of one to the start of the next; the last ends with its
    aggregation. `aggregation_seconds_median`: from the last reply to the new model."""
    starts = [note["at"] for note in notes if note["event"] == "start"]
    aggregated = [note["at"] for note in notes if note["event"] == "aggregated"]
    received = [note["at"] for note in notes if note["event"] == "received"]
    cycles = [after - before for before, after in itertools.pairwise([*starts, aggregated[-1]])][1:]
    return {
        "seconds_min": min(cycles),
        "seconds_median": statistics.median(cycles),
        "seconds": cycles,
        "aggregation_seconds_median": statistics.median(
            after - before for before, after in zip(received[1:], aggregated[1:], strict=False)
        ),
    }

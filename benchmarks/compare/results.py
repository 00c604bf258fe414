"""The files of results: one JSON object each, with all that is needed to judge and to repeat it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any


@dataclass
class Results:
    """`results`: one entry for each size, system and path or set-up. `skipped`: the same with a `reason` instead of
    figures. Sizes are learners × parameters of a layout."""

    benchmark: str
    command: str
    machine: dict[str, Any]
    versions: dict[str, dict[str, str | None]]
    day: str = field(default_factory=lambda: date.today().isoformat())
    results: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text()))


def file_of(folder: Path, part: str) -> Path:
    """Where the results of `aggregate` or `round` are."""
    return folder / f"compare-{part}.json"

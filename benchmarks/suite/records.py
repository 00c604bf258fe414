"""Files of results: what was run, when, and what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Record:
    """`result` is the JSON object that the command printed; where it failed, `failed` says how."""

    command: str
    day: str
    result: dict[str, Any] | None = None
    failed: str | None = None

    @classmethod
    def today(cls, command: str, result: dict[str, Any] | None = None, failed: str | None = None) -> Record:
        return cls(command, date.today().isoformat(), result, failed)

    def write(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in asdict(self).items() if value is not None}
        (folder / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def read(folder: Path, name: str) -> Record | None:
    """None where it has not been measured."""
    path = folder / f"{name}.json"
    return Record(**json.loads(path.read_text())) if path.exists() else None


def figures_of(folder: Path, name: str) -> dict[str, Any]:
    """What the command printed; empty where it was not measured or failed."""
    record = read(folder, name)
    return record.result or {} if record else {}

"""Federation objects in words and tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from metisfl.local.progress.words import duration

Json = Mapping[str, Any]

_COLUMNS = ("NAME", "STATE", "ROUND", "LEARNERS", "METRIC", "AGE")


def condition(federation: Json, kind: str) -> Json:
    """The condition of this type; empty while there is none."""
    return next((c for c in federation.get("status", {}).get("conditions", []) if c.get("type") == kind), {})


def holds(federation: Json, kind: str) -> bool:
    return bool(condition(federation, kind).get("status") == "True")


def telling(federation: Json) -> str:
    """The condition that says most, as `Type: reason: message`."""
    for kind, wanted in (
        ("Failed", "True"),
        ("Complete", "True"),
        ("Suspended", "True"),
        ("ControllerAvailable", "False"),
        ("Progressing", "False"),
    ):
        found = condition(federation, kind)
        if found.get("status") == wanted:
            label = kind if wanted == "True" else f"{kind} is False"
            return ": ".join(filter(None, [label, found.get("reason"), found.get("message")]))
    return "starting" if federation.get("status", {}).get("conditions") else "no status yet: is the operator running?"


def state(federation: Json) -> str:
    """One word: Complete, Failed, Suspended, the reason of Progressing, or Pending while nobody has looked at it."""
    for kind in ("Failed", "Complete", "Suspended"):
        if holds(federation, kind):
            return kind
    return str(condition(federation, "Progressing").get("reason") or "Pending")


def table(federations: Iterable[Json], now: datetime, namespaces: bool) -> list[str]:
    """One line for each, under a header, in columns."""
    rows = [("NAMESPACE", *_COLUMNS) if namespaces else _COLUMNS]
    for found in federations:
        row = (found["metadata"]["name"], state(found), rounds(found), learners(found), metric(found), age(found, now))
        rows.append((found["metadata"]["namespace"], *row) if namespaces else row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def details(federation: Json) -> list[str]:
    """How one federation stands."""
    status = federation.get("status", {})
    told = telling(federation)
    if told == "starting":
        found = condition(federation, "Progressing")
        told = ": ".join(filter(None, [found.get("reason"), found.get("message")])) or told
    facts = {
        "round": rounds(federation),
        "learners": f"{learners(federation)} connected",
        **{entry["name"]: entry["value"] for entry in status.get("metrics", [])},
        "model": _model(status.get("globalModel") or {}),
        "endpoint": status.get("endpoint", ""),
        "output": condition(federation, "ModelDelivered").get("message", ""),
    }
    width = max(len(name) for name in facts)
    lines = [f"  {name:<{width}}  {value}" for name, value in facts.items() if value]
    return [f"{federation['metadata']['name']}: {told}", *lines]


def rounds(federation: Json) -> str:
    done = federation.get("status", {}).get("currentRound", 0)
    return f"{done}/{federation['spec'].get('termination', {}).get('maxRounds', '?')}"


def learners(federation: Json) -> str:
    return str((federation.get("status", {}).get("learners") or {}).get("summary", "0/0"))


def metric(federation: Json) -> str:
    values = federation.get("status", {}).get("metrics") or [{}]
    return f"{values[0]['name']} {values[0]['value']}" if values[0] else ""


def age(federation: Json, now: datetime) -> str:
    return since(federation["metadata"].get("creationTimestamp"), now)


def since(moment: str | None, now: datetime) -> str:
    """How long ago, as `3 min`; empty when it is not known."""
    if not moment:
        return ""
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return duration(max(timedelta(), now - then.astimezone(UTC)))


def _model(model: Json) -> str:
    return f"version {model['version']}, sha256 {model['sha256'][:12]}…" if model else ""

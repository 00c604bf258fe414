"""`--set path=value`: change one value of a Federation before it is validated."""

from __future__ import annotations

from typing import Any

from metisfl.spec.documents import parse_documents
from metisfl.spec.paths import type_at
from metisfl.spec.problems import SpecError


def apply_override(spec: dict[str, Any], override: str, schema: Any) -> None:
    """Set one value under `spec`: `training.epochs=3`, `learnerGroups.silo-a.replicas=4`, `learnerGroups.0.replicas=4`.

    A leading `spec.` is allowed. The value is read as YAML, except where `schema` wants text, which it then is without
    quotes. Raises SpecError when the path leads nowhere; what the value may be is judged when the object is parsed.
    """
    path, separator, text = override.partition("=")
    keys = path.removeprefix("spec.").split(".")
    if not separator or not all(keys):
        raise SpecError([f"--set {override}: expected path=value, such as termination.maxRounds=3"])
    target: Any = spec
    walked: list[str | int] = []
    for key in keys[:-1]:
        step = _step(target, key, override)
        walked.append(step)
        if isinstance(target, dict) and target.get(step) is None:
            target[step] = {}
        target = target[step]
    last = _step(target, keys[-1], override)
    target[last] = text if type_at(schema, [*walked, last]) is str else _value(text, override)


def _step(target: Any, key: str, override: str) -> str | int:
    if isinstance(target, dict):
        return key
    if not isinstance(target, list):
        raise SpecError([f"--set {override}: nothing named '{key}' can be set inside a single value"])
    for index, entry in enumerate(target):
        if isinstance(entry, dict) and entry.get("name") == key:
            return index
    if key.isdecimal() and int(key) < len(target):
        return int(key)
    names = [str(entry["name"]) for entry in target if isinstance(entry, dict) and "name" in entry]
    known = f"; there are: {', '.join(names)}" if names else ""
    raise SpecError([f"--set {override}: the list of {len(target)} has no entry '{key}'{known}"])


def _value(text: str, override: str) -> Any:
    try:
        documents = list(parse_documents(text))
    except SpecError as error:
        raise SpecError([f"--set {override}: {problem}" for problem in error.problems]) from error
    if len(documents) > 1:
        raise SpecError([f"--set {override}: the value must be a single one"])
    return documents[0] if documents else ""

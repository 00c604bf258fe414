"""From YAML text or an API object to a validated Federation, with errors a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from metisfl.spec.federation import KIND, Federation


class SpecError(ValueError):
    """A Federation that is not valid; `problems` holds one line for each thing that is wrong."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is written twice, which YAML readers otherwise resolve silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise SpecError([f"line {key_node.start_mark.line + 1}: key '{key}' is written twice"])
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_federation(path: Path, overrides: Iterable[str] = ()) -> Federation:
    """The one Federation in a YAML file, with `path=value` overrides applied; other objects in it are left alone.

    Raises SpecError for anything that is wrong with the file's content, OSError when it cannot be read.
    """
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_StrictLoader))
    except yaml.YAMLError as error:
        raise SpecError([f"not YAML: {error}"]) from error
    found = [d for d in documents if isinstance(d, dict) and d.get("kind") == KIND]
    if len(found) != 1:
        raise SpecError([f"the file must hold exactly one object of kind {KIND}, and holds {len(found)}"])
    document = found[0]
    for override in overrides:
        _apply_override(document, override)
    return parse_federation(document)


def parse_federation(document: Mapping[str, Any]) -> Federation:
    """Validate an object as the API server or a YAML reader hands it over. Raises SpecError."""
    try:
        return Federation.model_validate(document)
    except ValidationError as error:
        raise SpecError([_sentence(detail) for detail in error.errors()]) from error


def _apply_override(document: dict[str, Any], override: str) -> None:
    """`training.epochs=3` or `spec.training.epochs=3` or `learnerGroups.0.replicas=4`; the value is read as YAML."""
    path, separator, text = override.partition("=")
    keys = path.removeprefix("spec.").split(".")
    if not separator or not all(keys):
        raise SpecError([f"--set {override}: expected path=value, such as termination.maxRounds=3"])
    target: Any = document.setdefault("spec", {})
    for key, following in zip(keys, [*keys[1:], ""], strict=True):
        if isinstance(target, list):
            if not key.isdigit() or int(key) >= len(target):
                raise SpecError([f"--set {override}: '{key}' is not an index of a list of {len(target)}"])
            step: Any = int(key)
        elif isinstance(target, dict):
            step = key
        else:
            raise SpecError([f"--set {override}: '{key}' has no place inside a {type(target).__name__}"])
        if not following:
            target[step] = yaml.safe_load(text) if text else ""
            return
        if isinstance(target, dict) and step not in target:
            target[step] = {}
        target = target[step]


def _sentence(detail: ErrorDetails) -> str:
    """One problem as `path: value 'x' …what is allowed`."""
    path = _path(detail["loc"])
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        return f"{path}: unknown field"
    if kind == "missing":
        return f"{path}: required, and missing"
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    if kind in ("enum", "literal_error"):
        return f"{path}: {value!r} is not supported; allowed: {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"{path}: {value!r} does not match {context['pattern']}"
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value should ")
    return f"{path}: {value!r} is not allowed; it must be {message}"


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(document)"

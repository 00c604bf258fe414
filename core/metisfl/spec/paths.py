"""What the models say about a place in the object, given as a path of keys and indices."""

from __future__ import annotations

from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def type_at(root: Any, path: Iterable[str | int]) -> Any | None:
    """The type declared at `path` under `root`, without Annotated and Optional; None where nothing is declared."""
    current = _bare(root)
    for part in path:
        current = _bare(_step(current, part))
        if current is None:
            return None
    return current


def model_at(root: Any, path: Iterable[str | int]) -> type[BaseModel] | None:
    """The model declared at `path`, if there is one."""
    found = type_at(root, path)
    return found if _is_model(found) else None


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys a model has in YAML."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _step(current: Any, part: str | int) -> Any | None:
    if _is_model(current):
        for name, field in current.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
        return None
    arguments = get_args(current)
    if get_origin(current) is list and isinstance(part, int):
        return arguments[0]
    if get_origin(current) is dict and isinstance(part, str):
        return arguments[1]
    return None


def _bare(annotation: Any) -> Any | None:
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, UnionType):
            members = [member for member in get_args(annotation) if member is not NoneType]
            if len(members) != 1:
                return None
            annotation = members[0]
        else:
            return annotation


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)

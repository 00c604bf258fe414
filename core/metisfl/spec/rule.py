"""A rule across fields of a Federation: once in Python, and once as CEL for the API server.

The two forms are tested against each other with the same cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """`holds` judges the object at `path` as plain JSON with defaults filled in; `cel` says the same to Kubernetes.

    An empty `cel` means that the API server enforces the rule by other means.
    """

    path: tuple[str, ...]
    message: str
    holds: Callable[[Json], bool]
    cel: str


@dataclass(frozen=True)
class Fixed:
    """A field that may not change once the object exists: `field` of the object at `path`, or of each object in a list
    of named ones where a part of the path ends with [].

    API servers with CEL see both versions of an object; for the others the operator compares them.
    """

    path: tuple[str, ...]
    field: str

    @property
    def message(self) -> str:
        return f"{self.field} is fixed when the federation is created; to change it, create another federation"

    @property
    def cel(self) -> str:
        new, old = f"self.{self.field}", f"oldSelf.{self.field}"
        return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


class BrokenRulesError(ValueError):
    """`problems` holds one line for each broken rule, led by its path in the object."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))

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
class TransitionRule:
    """What may not change once the object exists; only the API server sees both versions."""

    path: tuple[str, ...]
    message: str
    cel: str


class BrokenRulesError(ValueError):
    """`problems` holds one line for each broken rule, led by its path in the object."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))

"""Rules across fields of a Federation spec, each once in Python and once as CEL for the API server.

The two forms are tested against each other with the same cases. Add a rule here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """`holds` judges the object at `path` as plain JSON with defaults filled in; `cel` says the same to Kubernetes."""

    path: tuple[str, ...]
    message: str
    holds: Callable[[Spec], bool]
    cel: str


def _exactly_one_bound(target: Spec) -> bool:
    return ("atLeast" in target) != ("atMost" in target)


def _total_replicas(spec: Spec) -> int:
    return sum(group.get("replicas", 1) for group in spec["learnerGroups"])


def _partitions_suffice(spec: Spec) -> bool:
    partitions = spec["learner"].get("partitions")
    return partitions is None or _total_replicas(spec) <= partitions


def _min_learners_can_be_reached(spec: Spec) -> bool:
    wanted = spec.get("selection", {}).get("minLearners")
    return wanted is None or wanted <= _total_replicas(spec)


def _group_names_differ(spec: Spec) -> bool:
    names = [group["name"] for group in spec["learnerGroups"]]
    return len(names) == len(set(names))


_SUM_OF_REPLICAS = "self.learnerGroups.map(g, g.replicas).sum()"

RULES: tuple[Rule, ...] = (
    Rule(
        path=("termination", "targetMetric"),
        message="set exactly one of atLeast and atMost",
        holds=_exactly_one_bound,
        cel="has(self.atLeast) != has(self.atMost)",
    ),
    Rule(
        path=(),
        message="learnerGroups must add up to at least one replica",
        holds=lambda spec: _total_replicas(spec) >= 1,
        cel=f"{_SUM_OF_REPLICAS} >= 1",
    ),
    Rule(
        path=(),
        message="selection.minLearners must not exceed the sum of learnerGroups' replicas",
        holds=_min_learners_can_be_reached,
        cel="!has(self.selection) || !has(self.selection.minLearners) || "
        f"self.selection.minLearners <= {_SUM_OF_REPLICAS}",
    ),
    Rule(
        path=(),
        message="learner.partitions must be at least the sum of learnerGroups' replicas",
        holds=_partitions_suffice,
        cel=f"!has(self.learner.partitions) || {_SUM_OF_REPLICAS} <= self.learner.partitions",
    ),
    Rule(
        path=(),
        message="learnerGroups must have different names",
        holds=_group_names_differ,
        # The API server refuses duplicates itself: the list's type is map, keyed by name.
        cel="",
    ),
)


def _at(spec: Spec, path: tuple[str, ...]) -> Spec | None:
    value: Any = spec
    for key in path:
        value = value.get(key)
        if value is None:
            return None
    found: Spec = value
    return found


def check(spec: Spec) -> None:
    """Raise ValueError with every broken rule, each led by its path under `spec`."""
    broken = []
    for rule in RULES:
        target = _at(spec, rule.path)
        if target is not None and not rule.holds(target):
            where = ".".join(("spec", *rule.path))
            broken.append(f"{where}: {rule.message}")
    if broken:
        raise ValueError("; ".join(broken))

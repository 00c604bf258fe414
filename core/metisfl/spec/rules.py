"""Rules across fields of a Federation, each once in Python and once as CEL for the API server.

The two forms are tested against each other with the same cases. Add a rule here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

# A StatefulSet's name goes into a label with an eleven character suffix, and labels end at 63 characters.
MAX_WORKLOAD_NAME_LENGTH = 52
# `<federation>-controller` is the controller's own StatefulSet.
RESERVED_GROUP_NAME = "controller"


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


def _exactly_one_bound(target: Json) -> bool:
    return ("atLeast" in target) != ("atMost" in target)


def _top_k_only_for_its_codec(transport: Json) -> bool:
    return "topK" not in transport or transport.get("codec") == "TopK"


def _level_only_for_zstd(compression: Json) -> bool:
    return "level" not in compression or compression.get("type") == "Zstd"


def _total_replicas(spec: Json) -> int:
    return sum(group.get("replicas", 1) for group in spec["learnerGroups"])


def _partitions_suffice(spec: Json) -> bool:
    partitions = spec["learner"].get("partitions")
    return partitions is None or _total_replicas(spec) <= partitions


def _min_learners_can_be_reached(spec: Json) -> bool:
    wanted = spec.get("selection", {}).get("minLearners")
    return wanted is None or wanted <= _total_replicas(spec)


def _group_names_differ(spec: Json) -> bool:
    names = [group["name"] for group in spec["learnerGroups"]]
    return len(names) == len(set(names))


def _no_reserved_group_name(spec: Json) -> bool:
    return all(group["name"] != RESERVED_GROUP_NAME for group in spec["learnerGroups"])


def _workload_names_fit(federation: Json) -> bool:
    longest = max((len(group["name"]) for group in federation["spec"]["learnerGroups"]), default=0)
    return len(federation["metadata"]["name"]) + 1 + longest <= MAX_WORKLOAD_NAME_LENGTH


_SUM_OF_REPLICAS = "self.learnerGroups.map(g, g.replicas).sum()"

RULES: tuple[Rule, ...] = (
    Rule(
        path=(),
        message="metadata.name and a learner group's name must have at most "
        f"{MAX_WORKLOAD_NAME_LENGTH - 1} characters together",
        holds=_workload_names_fit,
        cel=f"self.spec.learnerGroups.all(g, size(self.metadata.name) + size(g.name) < {MAX_WORKLOAD_NAME_LENGTH})",
    ),
    Rule(
        path=("spec", "termination", "targetMetric"),
        message="set exactly one of atLeast and atMost",
        holds=_exactly_one_bound,
        cel="has(self.atLeast) != has(self.atMost)",
    ),
    Rule(
        path=("spec", "transport"),
        message="topK is for codec TopK only",
        holds=_top_k_only_for_its_codec,
        cel="!has(self.topK) || self.codec == 'TopK'",
    ),
    Rule(
        path=("spec", "transport", "compression"),
        message="level is for type Zstd only",
        holds=_level_only_for_zstd,
        cel="!has(self.level) || self.type == 'Zstd'",
    ),
    Rule(
        path=("spec",),
        message="learnerGroups must add up to at least one replica",
        holds=lambda spec: _total_replicas(spec) >= 1,
        cel=f"{_SUM_OF_REPLICAS} >= 1",
    ),
    Rule(
        path=("spec",),
        message="selection.minLearners must not exceed the sum of learnerGroups' replicas",
        holds=_min_learners_can_be_reached,
        cel="!has(self.selection) || !has(self.selection.minLearners) || "
        f"self.selection.minLearners <= {_SUM_OF_REPLICAS}",
    ),
    Rule(
        path=("spec",),
        message="learner.partitions must be at least the sum of learnerGroups' replicas",
        holds=_partitions_suffice,
        cel=f"!has(self.learner.partitions) || {_SUM_OF_REPLICAS} <= self.learner.partitions",
    ),
    Rule(
        path=("spec",),
        message="learnerGroups must have different names",
        holds=_group_names_differ,
        # The API server refuses duplicates itself: the list's type is map, keyed by name.
        cel="",
    ),
    Rule(
        path=("spec",),
        message=f"learnerGroups must not use the name '{RESERVED_GROUP_NAME}', which is the controller's own",
        holds=_no_reserved_group_name,
        cel=f"self.learnerGroups.all(g, g.name != '{RESERVED_GROUP_NAME}')",
    ),
)

TRANSITION_RULES: tuple[TransitionRule, ...] = (
    TransitionRule(
        path=("spec", "learner"),
        message="partitions is fixed when the federation is created",
        cel="has(self.partitions) == has(oldSelf.partitions) && "
        "(!has(self.partitions) || self.partitions == oldSelf.partitions)",
    ),
)


def _at(document: Json, path: tuple[str, ...]) -> Json | None:
    value: Any = document
    for key in path:
        value = value.get(key)
        if value is None:
            return None
    found: Json = value
    return found


def check(federation: Json) -> None:
    """Raise BrokenRulesError if the object breaks any; `federation` is plain JSON with defaults filled in."""
    problems = []
    for rule in RULES:
        target = _at(federation, rule.path)
        if target is not None and not rule.holds(target):
            where = ".".join(rule.path)
            problems.append(f"{where}: {rule.message}" if where else rule.message)
    if problems:
        raise BrokenRulesError(problems)

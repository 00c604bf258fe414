"""`spec.learnerGroups`: where learners run, and how many."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import GroupName, Image, LabelValue, Parameters, PodPart, SpecModel
from metisfl.spec.rule import Json, Rule

# `<federation>-controller` is the controller's own StatefulSet.
RESERVED_GROUP_NAME = "controller"


class LearnerGroup(SpecModel):
    """Learners of one site, hardware kind or data volume."""

    name: GroupName
    """Learners are called <group>-<ordinal>."""

    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """How many learners; zero keeps the group's share of the data for later."""

    image: Image | None = None
    """Learner image; by default the one the operator was installed with."""

    parameters: Parameters = {}
    """On top of spec.learner.parameters."""

    resources: PodPart | None = None
    """Requests and limits of each learner's container, as in a pod."""

    volumes: Annotated[list[PodPart], Field(max_length=32)] = []
    """Volumes of each learner's pod, as in a pod: the site's data."""

    volume_mounts: Annotated[list[PodPart], Field(max_length=32)] = []
    """Where the container sees those volumes, as in a pod."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] = {}
    """Labels of the nodes that may run these learners."""


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


_SUM_OF_REPLICAS = "self.learnerGroups.map(g, g.replicas).sum()"

RULES: tuple[Rule, ...] = (
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

"""`spec.learnerGroups`: where learners run, and how many."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field
from pydantic.alias_generators import to_camel

from metisfl.spec.fields import GroupName, Image, ObjectName, Parameters, Quantity, SpecModel
from metisfl.spec.pods import PodOptions
from metisfl.spec.rule import Json, Rule
from metisfl.spec.termination import MetricSource

# `<federation>-controller` is the controller's own StatefulSet.
RESERVED_GROUP_NAME = "controller"


class Role(StrEnum):
    LEARNER = "Learner"
    EVALUATOR = "Evaluator"


class LearnerStorage(SpecModel):
    """A volume for each learner of the group. It is there until the Federation is deleted."""

    size: Quantity = "1Gi"
    """Room for what the learner keeps, such as 4 bytes a parameter with rule Scaffold or codec TopK."""

    storage_class_name: ObjectName | None = None
    """By default the cluster's default class."""


class LearnerGroup(PodOptions):
    """Learners of one site, hardware kind or data volume."""

    name: GroupName
    """Learners are called <group>-<ordinal>."""

    role: Role = Role.LEARNER
    """Learner: trains on its share of the data. Evaluator: gets every committed model to evaluate on the whole held-out
    data, and nothing else; it takes no share of the data, has no part in rounds, and nobody waits for it."""

    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """How many learners; zero keeps the group's share of the data for later."""

    external: bool = False
    """Without pods: these learners join from outside of the cluster, each with the bundle that `metisfl bundle` writes.
    Set maxLearners instead of replicas."""

    max_learners: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """How many learners of an external group may join, and so how many shares of the data are kept for it. By default a
    run starts without waiting for more than one of them."""

    image: Image | None = None
    """Learner image; by default the one the operator was installed with."""

    parameters: Parameters = {}
    """On top of spec.learner.parameters."""

    storage: LearnerStorage | None = None
    """Keep each learner's state directory on a volume of its own, so that control variates, TopK's residual and the
    certificate outlive the pod; by default they go with it."""

    @property
    def evaluates_only(self) -> bool:
        return self.role is Role.EVALUATOR

    @property
    def size(self) -> int:
        """The most learners the group may have, and so its shares of the data, unless it evaluates only."""
        return self.max_learners or self.replicas

    @property
    def pods(self) -> int:
        """The learners that run in pods of the cluster, or as processes of `metisfl run`."""
        return 0 if self.external else self.replicas

    @property
    def awaited(self) -> int:
        """The learners that are counted upon: all that have pods, and one at least of an external group."""
        return 1 if self.external else self.replicas


# What describes a pod, and has no meaning for learners outside of the cluster.
_POD_FIELDS = ("image", "storage", *map(to_camel, PodOptions.model_fields))


def total_size(spec: Json) -> int:
    """The most learners that train."""
    groups = (group for group in spec["learnerGroups"] if group.get("role") != Role.EVALUATOR)
    return sum(group.get("maxLearners", group.get("replicas", 1)) for group in groups)


def _evaluators_are_there(spec: Json) -> bool:
    ending = spec.get("termination", {})
    sources = [ending.get(criterion, {}).get("source") for criterion in ("targetMetric", "plateau")]
    return MetricSource.EVALUATORS not in sources or any(
        group.get("role") == Role.EVALUATOR for group in spec["learnerGroups"]
    )


def _partitions_suffice(spec: Json) -> bool:
    partitions = spec["learner"].get("partitions")
    return partitions is None or total_size(spec) <= partitions


def _min_learners_can_be_reached(spec: Json) -> bool:
    wanted = spec.get("selection", {}).get("minLearners")
    return wanted is None or wanted <= total_size(spec)


def _external_groups_are_bounded(spec: Json) -> bool:
    return all(group.get("external", False) == ("maxLearners" in group) for group in spec["learnerGroups"])


def _external_groups_have_no_pods(spec: Json) -> bool:
    external = (group for group in spec["learnerGroups"] if group.get("external", False))
    return all(group.get("replicas", 1) == 1 and not any(map(group.get, _POD_FIELDS)) for group in external)


def _group_names_differ(spec: Json) -> bool:
    names = [group["name"] for group in spec["learnerGroups"]]
    return len(names) == len(set(names))


def _no_reserved_group_name(spec: Json) -> bool:
    return all(group["name"] != RESERVED_GROUP_NAME for group in spec["learnerGroups"])


SUM_OF_SIZES = (
    "self.learnerGroups.map(g, g.role == 'Evaluator' ? 0 : has(g.maxLearners) ? g.maxLearners : g.replicas).sum()"
)
_BY_EVALUATORS = " || ".join(
    f"(has(self.termination.{criterion}) && self.termination.{criterion}.source == 'Evaluators')"
    for criterion in ("targetMetric", "plateau")
)
_NO_POD_FIELDS = " && ".join(f"!has(g.{field})" for field in _POD_FIELDS)

RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec",),
        message="learnerGroups must add up to at least one learner that trains",
        holds=lambda spec: total_size(spec) >= 1,
        cel=f"{SUM_OF_SIZES} >= 1",
    ),
    Rule(
        path=("spec",),
        message="selection.minLearners must not exceed the sum of learnerGroups' replicas and maxLearners, evaluators "
        "left out",
        holds=_min_learners_can_be_reached,
        cel=f"!has(self.selection) || !has(self.selection.minLearners) || self.selection.minLearners <= {SUM_OF_SIZES}",
    ),
    Rule(
        path=("spec",),
        message="learner.partitions must be at least the sum of learnerGroups' replicas and maxLearners, evaluators "
        "left out",
        holds=_partitions_suffice,
        cel=f"!has(self.learner.partitions) || {SUM_OF_SIZES} <= self.learner.partitions",
    ),
    Rule(
        path=("spec",),
        message="termination by the metrics of Evaluators needs a learner group with role Evaluator",
        holds=_evaluators_are_there,
        cel=f"!has(self.termination) || !({_BY_EVALUATORS}) || self.learnerGroups.exists(g, g.role == 'Evaluator')",
    ),
    Rule(
        path=("spec",),
        message="an external learner group must have maxLearners, and no other group may have it",
        holds=_external_groups_are_bounded,
        cel="self.learnerGroups.all(g, g.external == has(g.maxLearners))",
    ),
    Rule(
        path=("spec",),
        message="an external learner group has no pods: leave out replicas, " + ", ".join(_POD_FIELDS),
        holds=_external_groups_have_no_pods,
        cel=f"self.learnerGroups.all(g, !g.external || (g.replicas == 1 && {_NO_POD_FIELDS}))",
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

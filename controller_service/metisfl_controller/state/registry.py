"""Learners and their leases. Pure: time is passed in, nothing is sent."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import NoReturn

from metisfl.spec import FederationSpec
from metisfl.wire.layout import Layout
from metisfl_controller.partitions import PartitionPlan


class JoinRefusedError(ValueError):
    """This learner has no place in the federation."""


class UnknownLeaseError(KeyError):
    """No such lease, or one that has ended: the learner must join again."""


@dataclass
class Learner:
    """One learner, from its first Join on. `last_seen` is on the clock of the registry's `now`."""

    id: str
    group: str
    ordinal: int
    partition: int
    partitions: int
    parameters: Mapping[str, str]
    evaluator: bool = False
    """It evaluates, and does nothing else."""
    lease: str = ""
    last_seen: float = 0.0
    framework: str = ""
    ready: bool = False
    activity: str = "Idle"
    progress: float = 0.0
    message: str = ""
    train_examples: int = 0
    test_examples: int = 0
    layout: Layout | None = None


@dataclass
class Registry:
    """All learners of a federation, by id and by lease. Leases end after `lease_seconds` without a message."""

    plan: PartitionPlan
    sizes: Mapping[str, int]
    """The most learners of each group."""
    awaited: Mapping[str, int]
    """The learners of each group that are counted upon."""
    evaluators: Set[str]
    """The groups that evaluate only."""
    parameters: Mapping[str, Mapping[str, str]]
    lease_seconds: float
    learners: dict[str, Learner] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    _by_lease: dict[str, Learner] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: FederationSpec, plan: PartitionPlan, lease_seconds: float) -> Registry:
        registry = cls(plan, {}, {}, frozenset(), {}, lease_seconds)
        registry.amend(spec, plan)
        return registry

    def amend(self, spec: FederationSpec, plan: PartitionPlan) -> None:
        """Groups and their sizes have changed: who lost its place and is gone is forgotten."""
        self.plan = plan
        self.sizes = {group.name: group.size for group in spec.learner_groups}
        self.awaited = {group.name: group.awaited for group in spec.learner_groups}
        self.evaluators = frozenset(group.name for group in spec.evaluator_groups)
        self.parameters = {group.name: {**spec.learner.parameters, **group.parameters} for group in spec.learner_groups}
        for learner in list(self.learners.values()):
            self._forget_if_gone(learner)

    def present(self) -> list[Learner]:
        """Learners with a lease."""
        return list(self._by_lease.values())

    def outdated(self) -> list[Learner]:
        """Learners with a lease that joined with other parameters, or in another role, than their group has now."""
        return [
            learner
            for learner in self._by_lease.values()
            if learner.group in self.parameters
            and (learner.parameters, learner.evaluator)
            != (self.parameters[learner.group], learner.group in self.evaluators)
        ]

    def displaced(self) -> list[Learner]:
        """Learners with a lease whose group has become too small for them, or is no more."""
        return [learner for learner in self._by_lease.values() if not self._has_place(learner)]

    def _has_place(self, learner: Learner) -> bool:
        return learner.ordinal < self.sizes.get(learner.group, 0)

    def _forget_if_gone(self, learner: Learner) -> None:
        if not learner.lease and not self._has_place(learner):
            del self.learners[learner.id]

    @property
    def desired(self) -> int:
        """How many learners there should be now: those counted upon, and whoever of an external group is there too."""
        return self._desired(evaluators=False)

    @property
    def desired_evaluators(self) -> int:
        """How many evaluators there should be now, likewise."""
        return self._desired(evaluators=True)

    def _desired(self, evaluators: bool) -> int:
        there = Counter(learner.group for learner in self._by_lease.values())
        awaited = {group: count for group, count in self.awaited.items() if (group in self.evaluators) == evaluators}
        return sum(max(count, there[group]) for group, count in awaited.items())

    @property
    def heartbeat_seconds(self) -> int:
        """How often learners are asked to speak up: a few times a lease."""
        return max(1, int(self.lease_seconds / 4))

    def join(self, group: str, ordinal: int, framework: str, now: float) -> Learner:
        """A fresh lease for this learner; one it had before ends. Raises JoinRefusedError."""
        learner_id = self._known(group, ordinal)
        evaluator = group in self.evaluators
        try:
            # Whole data for evaluators: what is held out of it is what they measure on.
            index, count = (0, 1) if evaluator else (self.plan.index(group, ordinal), self.plan.count)
        except ValueError as error:
            self.refuse(group, ordinal, str(error))
        learner = self.learners.get(learner_id)
        if learner is None:
            learner = Learner(learner_id, group, ordinal, index, count, self.parameters[group])
            self.learners[learner_id] = learner
        learner.partition, learner.partitions, learner.evaluator = index, count, evaluator
        learner.parameters = self.parameters[group]
        self.refusals.pop(learner_id, None)
        self._by_lease.pop(learner.lease, None)
        learner.lease = secrets.token_urlsafe(24)
        learner.last_seen, learner.framework = now, framework
        learner.ready, learner.activity, learner.progress = False, "Idle", 0.0
        self._by_lease[learner.lease] = learner
        return learner

    def refuse(self, group: str, ordinal: int, why: str) -> NoReturn:
        """Raise JoinRefusedError, and keep for display why one of the federation's learners cannot join."""
        learner_id = self._known(group, ordinal)
        self.refusals[learner_id] = why
        if learner_id in self.learners:
            self.learners[learner_id].message = why
        raise JoinRefusedError(why)

    def _known(self, group: str, ordinal: int) -> str:
        """The learner's id. Raises JoinRefusedError."""
        if group not in self.sizes:
            raise JoinRefusedError(f"there is no learner group '{group[:63]}'; the groups are {', '.join(self.sizes)}")
        if ordinal >= self.sizes[group]:
            raise JoinRefusedError(
                f"group '{group}' has {self.sizes[group]} learners, numbered from 0; {group}-{ordinal} is not one "
                "of them"
            )
        return f"{group}-{ordinal}"

    def holder(self, lease: str, now: float) -> Learner:
        """The learner with this lease, whose clock starts anew. Raises UnknownLeaseError."""
        learner = self._by_lease.get(lease)
        if learner is None:
            raise UnknownLeaseError("the lease is not known or has ended: join again")
        learner.last_seen = now
        return learner

    def end(self, learner: Learner, message: str = "", activity: str = "Lost") -> None:
        """The learner is gone, Lost or Left; `message` says why when that is worth saying."""
        self._by_lease.pop(learner.lease, None)
        learner.lease, learner.ready = "", False
        learner.activity, learner.progress = activity, 0.0
        learner.message = message or learner.message
        self._forget_if_gone(learner)

    def expired(self, now: float) -> list[Learner]:
        """Learners that have been silent for longer than their lease."""
        return [learner for learner in self._by_lease.values() if now - learner.last_seen > self.lease_seconds]

    def others(self, layout: Layout) -> Iterable[Learner]:
        """Learners that hold a lease and a model of another layout."""
        return [
            learner
            for learner in self._by_lease.values()
            if learner.layout is not None and learner.layout.digest != layout.digest
        ]

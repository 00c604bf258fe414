"""What the state machine needs to know of a Federation, as plain numbers and functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from metisfl.spec import FederationSpec
from metisfl.spec.protocol import AsynchronousSpec, LateUpdates, SemiSynchronousSpec
from metisfl.spec.termination import PlateauSpec, TargetMetricSpec
from metisfl_controller.rounds.protocols.parameters import Buffering, Pacing
from metisfl_controller.rounds.selection.all import All
from metisfl_controller.rounds.selection.choice import selection_of
from metisfl_controller.rounds.selection.policy import Candidate, Selection
from metisfl_controller.rounds.termination.plateau import Plateau
from metisfl_controller.rounds.termination.target import Target
from metisfl_controller.rounds.weighting import WEIGHTINGS, Weigh, training_examples


@dataclass(frozen=True)
class Plan:
    """Times are in seconds."""

    expected_learners: int
    min_learners: int
    quorum_percent: int
    round_deadline: float
    max_rounds: int
    min_updates: int = 1
    """Fewer make no version, whatever the quorum."""

    over_select: int = 0
    late_updates: bool = False
    """Whether updates that miss their round count in the next."""

    pacing: Pacing | None = None
    """Set for protocol SemiSynchronous."""

    buffering: Buffering | None = None
    """Set for protocol Asynchronous."""

    evaluate_every: int = 1
    max_duration: float | None = None
    target: Target | None = None
    plateau: Plateau | None = None
    too_few_learners: float | None = None
    """How long fewer than `min_learners` are put up with."""

    evaluators: tuple[str, ...] = ()
    """Those that should be there; others may join."""

    evaluator_wait: float = 60.0
    """How long the end waits for evaluators that are there."""

    weigh: Weigh = training_examples
    selection: Selection = field(default_factory=All)
    max_attempts: int = 3
    places: Mapping[str, int] | None = None
    """How many learners each group has; None: anybody may take part."""

    revoked: frozenset[str] = frozenset()
    """Learners that are shut out."""

    gather_grace: float = 15.0
    """How long the first start waits for the rest once `min_learners` are ready, so that version 0 does not depend on
    which pod happened to start first."""

    @classmethod
    def of(cls, spec: FederationSpec) -> Plan:
        protocol, termination = spec.protocol, spec.termination
        member, synchronous = protocol.member, protocol.synchronous_or_default
        selection = selection_of(spec.selection)
        everybody = [Candidate(f"{group.name}-{i}") for group in spec.training_groups for i in range(group.awaited)]
        # Without rounds one learner is enough to go on with.
        quorum_percent = 1 if isinstance(member, AsynchronousSpec) else member.quorum_percent
        quorum = quorum_of(len(selection.select(everybody, round=1)), quorum_percent)
        return cls(
            expected_learners=spec.awaited_learners,
            min_learners=max(spec.selection.min_learners or quorum, spec.aggregation.updates_needed),
            quorum_percent=quorum_percent,
            round_deadline=member.round_deadline_seconds,
            min_updates=spec.aggregation.updates_needed,
            over_select=synchronous.over_select,
            late_updates=synchronous.late_updates is LateUpdates.NEXT_ROUND,
            pacing=Pacing.of(member, spec.training.batch_size) if isinstance(member, SemiSynchronousSpec) else None,
            buffering=Buffering.of(member) if isinstance(member, AsynchronousSpec) else None,
            max_rounds=termination.max_rounds,
            evaluate_every=spec.evaluation.every_rounds,
            evaluators=tuple(f"{group.name}-{i}" for group in spec.evaluator_groups for i in range(group.pods)),
            evaluator_wait=spec.evaluation.evaluator_wait_seconds,
            weigh=WEIGHTINGS[spec.aggregation.weighting],
            selection=selection,
            places={group.name: group.size for group in spec.training_groups},
            revoked=frozenset(spec.security.revoked),
            max_duration=termination.max_duration_seconds,
            target=_target(termination.target_metric),
            plateau=_plateau(termination.plateau),
            too_few_learners=termination.too_few_learners_seconds,
        )

    def has_place(self, learner: str) -> bool:
        """Whether a learner, `<group>-<ordinal>`, that is not there may be expected to come."""
        if self.places is None:
            return learner not in self.revoked
        group, _, ordinal = learner.rpartition("-")
        return learner not in self.revoked and int(ordinal) < self.places.get(group, 0)

    def evaluates(self, version: int) -> bool:
        """Whether learners evaluate this version when they download it to train on."""
        return version % self.evaluate_every == 0


def quorum_of(participants: int, percent: int) -> int:
    """`percent` of the participants, rounded up, and at least one."""
    return max(1, math.ceil(participants * percent / 100))


def _target(spec: TargetMetricSpec | None) -> Target | None:
    if spec is None:
        return None
    return Target(spec.name, _number(spec.at_least), _number(spec.at_most), spec.patience, spec.source)


def _plateau(spec: PlateauSpec | None) -> Plateau | None:
    if spec is None:
        return None
    return Plateau(spec.metric, spec.rounds, spec.goal, float(Decimal(spec.min_delta)), spec.source)


def _number(text: str | None) -> float | None:
    return None if text is None else float(Decimal(text))

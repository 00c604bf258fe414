"""The policy that a spec names."""

from __future__ import annotations

from fractions import Fraction

from metisfl.spec.selection import SelectionSpec, SelectionType
from metisfl_controller.rounds.selection.all import All
from metisfl_controller.rounds.selection.per_group import PerGroup
from metisfl_controller.rounds.selection.policy import Selection
from metisfl_controller.rounds.selection.power_of_choice import PowerOfChoice
from metisfl_controller.rounds.selection.random import Random
from metisfl_controller.rounds.selection.round_robin import RoundRobin


def selection_of(spec: SelectionSpec) -> Selection:
    """Only for a valid spec: the member that `type` names is there."""
    match spec.type:
        case SelectionType.ALL:
            return All()
        case SelectionType.RANDOM:
            assert spec.random is not None
            return Random(Fraction(spec.random.fraction), spec.random.seed)
        case SelectionType.ROUND_ROBIN:
            assert spec.round_robin is not None
            return RoundRobin(spec.round_robin.learners)
        case SelectionType.POWER_OF_CHOICE:
            assert spec.power_of_choice is not None
            chosen = spec.power_of_choice
            return PowerOfChoice(chosen.candidates, chosen.learners, chosen.metric, chosen.seed)
        case SelectionType.PER_GROUP:
            assert spec.per_group is not None
            return PerGroup(spec.per_group.learners)

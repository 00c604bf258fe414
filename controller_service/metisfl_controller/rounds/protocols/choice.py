"""From a plan to the training that its protocol asks for."""

from __future__ import annotations

from collections.abc import Callable

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.buffer_training import BufferTraining
from metisfl_controller.rounds.learners import Learners
from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.protocols.semi_synchronous import SemiSynchronous
from metisfl_controller.rounds.protocols.synchronous import Synchronous
from metisfl_controller.rounds.round_training import RoundTraining
from metisfl_controller.rounds.training import Training


def training_of(plan: Plan, learners: Learners, say: Callable[[m.Command], None], resumed: Resumed) -> Training:
    """`resumed`: where an earlier controller left off."""
    if plan.buffering is not None:
        return BufferTraining(plan, plan.buffering, learners, say, resumed)
    protocol = Synchronous(plan) if plan.pacing is None else SemiSynchronous(plan)
    return RoundTraining(plan, protocol, learners, say)

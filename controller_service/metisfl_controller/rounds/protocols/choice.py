"""From a plan to the training that its protocol asks for."""

from __future__ import annotations

from collections.abc import Callable

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.learners import Learners
from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.protocols.synchronous import Synchronous
from metisfl_controller.rounds.round_training import RoundTraining
from metisfl_controller.rounds.training import Training


def training_of(plan: Plan, learners: Learners, say: Callable[[m.Command], None], resumed: Resumed) -> Training:
    return RoundTraining(plan, Synchronous(plan), learners, say)

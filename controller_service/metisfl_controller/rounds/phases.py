"""Where a federation stands, and where it goes on after a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from metisfl_controller.rounds.selection.selector import History
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.rounds.termination.termination import Observed


class Phase(StrEnum):
    GATHERING = "gathering"
    INITIALISING = "initialising"
    BETWEEN = "between"
    TRAINING = "training"
    COMMITTING = "committing"
    EVALUATING = "evaluating"
    ENDED = "ended"

    @property
    def has_training(self) -> bool:
        """Whether there is a model to train from, and not the last one yet."""
        return self in (Phase.BETWEEN, Phase.TRAINING, Phase.COMMITTING)


@dataclass(frozen=True)
class Resumed:
    """Where an earlier controller left off; the default is a new federation.

    The version is evaluated again even if its metrics are known: the controller may have been killed after it recorded
    them and before it drew its conclusion from them.
    """

    version: int | None = None
    started_at: float | None = None
    ended: bool = False
    observed: Sequence[Observed] = ()
    """Conclusive metrics of the versions before this one, oldest first."""

    learners: Mapping[str, History] = field(default_factory=dict)
    """What each did, for those that are to be selected."""

    counted: frozenset[TaskId] = frozenset()
    """What is in the versions that tasks of protocol Asynchronous may still be compared with."""

    @property
    def phase(self) -> Phase:
        if self.ended:
            return Phase.ENDED
        return Phase.GATHERING if self.version is None else Phase.BETWEEN

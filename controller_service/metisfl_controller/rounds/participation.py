"""Who takes part in an open round, and what has become of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from metisfl_controller.rounds.evaluation import Evaluation
from metisfl_controller.rounds.plan import quorum_of
from metisfl_controller.rounds.tasks import TaskId


class Standing(Enum):
    PENDING = auto()
    """At work, as far as is known."""

    DONE = auto()
    """Its update counts."""

    LOST = auto()
    """Gone or failed; asked again when it returns."""

    EXCLUDED = auto()
    """Its update was refused; not asked again in this round."""


@dataclass
class Participant:
    task: TaskId
    standing: Standing = Standing.PENDING


@dataclass
class OpenRound:
    """Round `number` turns version `base_version` into the next. Times are on the clock of the machine's `now`."""

    number: int
    base_version: int
    quorum_percent: int
    started_at: float
    deadline_at: float
    attempt: int = 1
    participants: dict[str, Participant] = field(default_factory=dict)
    evaluation: Evaluation | None = None

    @property
    def quorum(self) -> int:
        return quorum_of(len(self.participants), self.quorum_percent)

    def expects(self, task: TaskId) -> bool:
        """Whether this task's result would count; also of a learner that was lost while it was on its way."""
        participant = self.participants.get(task.learner)
        return (
            participant is not None
            and participant.task == task
            and participant.standing in (Standing.PENDING, Standing.LOST)
        )

    def stands(self, learner: str, standing: Standing) -> None:
        """A participant that has not delivered is lost or excluded; what was delivered stays."""
        participant = self.participants.get(learner)
        if participant and participant.standing is Standing.PENDING:
            participant.standing = standing

    def having(self, *standings: Standing) -> tuple[str, ...]:
        """Participants of these standings, in the order of their names."""
        return tuple(sorted(name for name, p in self.participants.items() if p.standing in standings))

    @property
    def has_quorum(self) -> bool:
        return len(self.having(Standing.DONE)) >= self.quorum

    @property
    def all_reported(self) -> bool:
        return not self.having(Standing.PENDING)

    @property
    def hopeless(self) -> bool:
        """No participant is left who may still deliver."""
        return not self.having(Standing.PENDING, Standing.LOST)

    @property
    def all_evaluated(self) -> bool:
        """Nobody is left who may still report metrics of the base version; who is lost may return and do so."""
        if self.evaluation is None:
            return True
        return set(self.having(Standing.PENDING, Standing.LOST)) <= set(self.evaluation.reports)

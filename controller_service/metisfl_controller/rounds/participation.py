"""Who takes part in an open round, and what has become of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from metisfl_controller.rounds.evaluation import Evaluation, Report
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

    RELEASED = auto()
    """Gone, and its place with it: the round needs one update less, unless it gets its place again."""


@dataclass
class Participant:
    task: TaskId
    standing: Standing = Standing.PENDING


@dataclass
class OpenRound:
    """Round `number` turns version `base_version` into the next. Times are on the clock of the machine's `now`.

    Every question below is asked after every event, so each is answered from counts: a round of a thousand learners
    would otherwise look at a thousand participants a thousand times.
    """

    number: int
    base_version: int
    quorum_percent: int
    started_at: float
    deadline_at: float
    over_select: int = 0
    """How many more are asked than are needed."""

    min_updates: int = 1
    """Fewer are no quorum, whatever the percentage."""

    attempt: int = 1
    evaluation: Evaluation | None = None
    _participants: dict[str, Participant] = field(default_factory=dict)
    _counts: Counter[Standing] = field(default_factory=Counter)
    _unreported: set[str] = field(default_factory=set)
    """Who may still report metrics of the base version."""

    @property
    def participants(self) -> Mapping[str, Participant]:
        return self._participants

    @property
    def needed(self) -> int:
        """With so many updates the round need not wait for more."""
        # Who is released is one of those who were asked beyond the needed, as long as there are any.
        spared = max(self.over_select, self._counts[Standing.RELEASED])
        return max(self.min_updates, len(self._participants) - spared)

    @property
    def quorum(self) -> int:
        return max(self.min_updates, quorum_of(self.needed, self.quorum_percent))

    @property
    def done(self) -> int:
        return self._counts[Standing.DONE]

    def assign(self, task: TaskId) -> None:
        """The task's learner has a part in the round, or has it again."""
        before = self._participants.get(task.learner)
        if before is not None:
            self._counts[before.standing] -= 1
        self._participants[task.learner] = Participant(task)
        self._counts[Standing.PENDING] += 1
        self._may_report(task)

    def expects(self, task: TaskId) -> bool:
        """Whether this task's result would count; also of a learner that was lost while it was on its way."""
        participant = self._participants.get(task.learner)
        return (
            participant is not None
            and participant.task == task
            and participant.standing in (Standing.PENDING, Standing.LOST)
        )

    def delivered(self, learner: str) -> None:
        """A participant's update counts."""
        self._set(learner, Standing.DONE)

    def stands(self, learner: str, standing: Standing) -> None:
        """A participant that has not delivered is lost or excluded; what was delivered stays."""
        participant = self._participants.get(learner)
        if participant and participant.standing is Standing.PENDING:
            self._set(learner, standing)

    def release(self, learner: str) -> None:
        """Nobody waits for a lost participant any more."""
        self._set(learner, Standing.RELEASED)

    def restore(self, learner: str) -> None:
        """A released participant is lost as others are, and needed as before."""
        self._set(learner, Standing.LOST)
        self._may_report(self._participants[learner].task)

    def reported(self, learner: str, report: Report) -> None:
        """Metrics of the base version have come."""
        if self.evaluation is not None:
            self.evaluation.reports[learner] = report
            self._unreported.discard(learner)

    def having(self, *standings: Standing) -> tuple[str, ...]:
        """Participants of these standings, in the order of their names."""
        return tuple(sorted(name for name, p in self._participants.items() if p.standing in standings))

    @property
    def has_quorum(self) -> bool:
        return self.done >= self.quorum

    @property
    def has_enough(self) -> bool:
        return self.done >= self.needed

    @property
    def all_reported(self) -> bool:
        return not self._counts[Standing.PENDING]

    @property
    def waits(self) -> bool:
        """Somebody is at work, or may return to it."""
        return self._counts[Standing.PENDING] + self._counts[Standing.LOST] > 0

    @property
    def lacks_only_released(self) -> bool:
        """Everybody else has delivered."""
        return self.done + self._counts[Standing.RELEASED] == len(self._participants)

    @property
    def hopeless(self) -> bool:
        """No participant is left who may still deliver, not even by getting its place again."""
        return not self.waits and not self._counts[Standing.RELEASED]

    @property
    def all_evaluated(self) -> bool:
        """Nobody is left who may still report metrics of the base version; who is lost may return and do so."""
        return not self._unreported

    def _may_report(self, task: TaskId) -> None:
        if self.evaluation is not None and self.evaluation.lacks(task):
            self._unreported.add(task.learner)

    def _set(self, learner: str, standing: Standing) -> None:
        participant = self._participants[learner]
        self._counts[participant.standing] -= 1
        self._counts[standing] += 1
        participant.standing = standing
        if standing in (Standing.DONE, Standing.EXCLUDED, Standing.RELEASED):
            self._unreported.discard(learner)

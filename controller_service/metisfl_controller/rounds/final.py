"""The last version is evaluated by a task of its own, as no round follows in which learners would download it."""

from __future__ import annotations

from dataclasses import dataclass, field

from metisfl_controller.rounds.evaluation import Evaluation, Report
from metisfl_controller.rounds.learners import Learners
from metisfl_controller.rounds.tasks import Kind, Order, TaskId
from metisfl_controller.rounds.termination.target import Target


@dataclass
class FinalEvaluation:
    """`reason` and `message` say why there are no more rounds.

    Until `complete_at`, learners that are not there yet are waited for; until `deadline_at`, those that were asked.
    """

    learners: Learners
    evaluation: Evaluation
    expected_learners: int
    complete_at: float
    deadline_at: float
    reason: str
    message: str
    _asked: dict[str, TaskId] = field(default_factory=dict)
    _outstanding: set[str] = field(default_factory=set)
    """Who was asked and has not reported."""

    def ask(self, learner: str) -> None:
        """Also again, when it has reconnected."""
        version, asked = self.evaluation.version, self._asked.get(learner)
        self.learners.discard_but(str(asked) if asked else None, self.learners.unpack(learner))
        task = self._asked[learner] = asked or self.learners.task(Kind.EVALUATE, version, learner, 1)
        if learner not in self.evaluation.reports:
            self._outstanding.add(learner)
        self.learners.dispatch(Order(task, version, True, self.deadline_at))

    def reported(self, learner: str, report: Report) -> None:
        self.evaluation.reports[learner] = report
        self._outstanding.discard(learner)

    def failed(self, task: TaskId) -> None:
        """Its learner is not waited for; an older task's failure excuses nobody."""
        if self._asked.get(task.learner) == task:
            del self._asked[task.learner]
            self._outstanding.discard(task.learner)

    def done(self, now: float) -> bool:
        """Whether there is nobody left to wait for, or no time. Without any report there is always somebody."""
        ready = self.learners.ready
        outstanding = any(learner in ready for learner in self._outstanding)
        expecting = now < self.complete_at and len(ready) < self.expected_learners
        return now >= self.deadline_at or not (outstanding or expecting or not self.evaluation.reports)

    def conclusion(self, target: Target | None) -> tuple[str, str]:
        """The reason and the message with which the federation ends."""
        if reached := self.evaluation.reaches(target):
            return "TargetMetricReached", reached
        if not self.evaluation.reports:
            return self.reason, f"{self.message}; no learner evaluated the last version in time"
        return self.reason, self.message

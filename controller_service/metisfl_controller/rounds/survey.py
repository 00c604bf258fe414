"""Federated evaluation where learners do not begin together: one version at a time, by all, each at its next turn.

A learner that trains is not interrupted. When it has delivered, it evaluates the version that is being surveyed, even
if there are newer ones, and goes on. So a version's metrics are of all learners here too. Versions that are made
meanwhile are not evaluated; the next survey begins with the first one that is due after this one ended.
"""

from __future__ import annotations

from collections.abc import Set

from metisfl_controller.rounds.evaluation import Evaluation, Report
from metisfl_controller.rounds.learners import Learners
from metisfl_controller.rounds.tasks import Kind, Order, TaskId


class Survey:
    """At most one is open."""

    def __init__(self, learners: Learners) -> None:
        self._learners = learners
        self._evaluation: Evaluation | None = None
        self._deadline_at = 0.0
        self._outstanding: set[str] = set()
        """Who was there when it was opened and has not reported."""
        self._asked: dict[str, TaskId] = {}
        """Who evaluates now, and does nothing else."""

    def open(self, evaluation: Evaluation, deadline_at: float) -> None:
        """Nothing happens while another is open."""
        if self._evaluation is None:
            self._evaluation, self._deadline_at = evaluation, deadline_at
            self._outstanding = set(self._learners.ready) - evaluation.reports.keys()

    @property
    def version(self) -> int | None:
        return self._evaluation.version if self._evaluation is not None else None

    @property
    def busy(self) -> Set[str]:
        return self._asked.keys()

    def lacks(self, learner: str) -> bool:
        """Whether this learner's report is still wanted."""
        return learner in self._outstanding

    def ask(self, learner: str, round: int) -> None:
        """It has nothing else to do."""
        assert self._evaluation is not None
        version = self._evaluation.version
        task = self._asked[learner] = self._learners.task(Kind.EVALUATE, version, learner, 1)
        self._learners.dispatch(Order(task, round, evaluate=True, deadline=self._deadline_at))

    def asks(self, task: TaskId) -> bool:
        return self._asked.get(task.learner) == task

    def returned(self, learner: str, running: str) -> None:
        """A learner has reconnected, and may still be at it."""
        if learner in self._asked and str(self._asked[learner]) != running:
            del self._asked[learner]

    def reported(self, learner: str, version: int, report: Report) -> None:
        if self._evaluation is not None and self._evaluation.awaits(version):
            self._evaluation.reports[learner] = report
            self.excuse(learner)

    def excuse(self, learner: str) -> None:
        """It is not waited for."""
        self._outstanding.discard(learner)
        self._asked.pop(learner, None)

    def close(self, now: float) -> Evaluation | None:
        """The evaluation, when nobody who is there is left to report, or no time; once."""
        evaluation = self._evaluation
        if evaluation is None or (now < self._deadline_at and self._outstanding & self._learners.ready.keys()):
            return None
        self._end()
        return evaluation

    def abandon(self, reason: str) -> None:
        for task in self._asked.values():
            self._learners.discard(task, reason)
        self._end()

    def _end(self) -> None:
        self._evaluation = None
        self._outstanding.clear()
        self._asked.clear()

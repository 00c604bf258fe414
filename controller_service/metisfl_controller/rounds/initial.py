"""The initial model: version 0 is what the first learner by name hands over, or the next when that one cannot."""

from __future__ import annotations

from dataclasses import dataclass, field

from metisfl_controller.rounds.learners import Learners, by_number
from metisfl_controller.rounds.tasks import Kind, Order, TaskId


@dataclass
class InitialModel:
    """Asks one ready learner after the other for its weights. Each has `deadline` seconds."""

    learners: Learners
    deadline: float
    _order: Order | None = None
    _tried: set[str] = field(default_factory=set)
    """Learners that failed or took too long; who was lost is asked again."""

    def ask(self, now: float) -> bool:
        """Ask the first learner that was not tried; False when there is none."""
        candidates = by_number(set(self.learners.ready) - self._tried)
        if not candidates:
            return False
        task = self.learners.task(Kind.INITIALISE, 0, candidates[0], len(self._tried) + 1)
        self._order = Order(task, round=0, deadline=now + self.deadline)
        self.learners.dispatch(self._order)
        return True

    def returned(self, learner: str) -> bool:
        """A learner has reconnected; says whether it is the one that was asked, which is then asked again."""
        if self._order is None or self._order.task.learner != learner:
            return False
        self.learners.dispatch(self._order)
        return True

    def expects(self, task: TaskId) -> bool:
        return self._order is not None and self._order.task == task

    def arrived(self) -> None:
        self._order = None

    def failed(self, task: TaskId) -> None:
        if self.expects(task):
            self._tried.add(task.learner)
            self._order = None

    def under_way(self, now: float) -> bool:
        """Whether the learner asked may still deliver."""
        if self._order is None or self._order.task.learner not in self.learners.ready:
            self._order = None
        elif self._order.deadline is not None and now >= self._order.deadline:
            self.learners.discard(self._order.task, "the initial weights did not arrive in time")
            self.failed(self._order.task)
        return self._order is not None

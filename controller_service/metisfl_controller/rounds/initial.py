"""The initial model: version 0 is what the first learner by name hands over, or the next when that one cannot."""

from __future__ import annotations

from metisfl_controller.rounds.learners import Learners, by_number
from metisfl_controller.rounds.tasks import Kind, Order, TaskId


class InitialModel:
    """Asks one ready learner after the other for its weights. Each has `deadline` seconds."""

    def __init__(self, learners: Learners, deadline: float) -> None:
        self._learners = learners
        self._deadline = deadline
        self._order: Order | None = None
        self._tried: set[str] = set()
        """Learners that failed or took too long; who was lost is asked again."""

    def ask(self, now: float) -> bool:
        """Ask the first learner that was not tried; False when there is none."""
        candidates = by_number(set(self._learners.ready) - self._tried)
        if not candidates:
            return False
        task = self._learners.task(Kind.INITIALISE, 0, candidates[0], len(self._tried) + 1)
        self._order = Order(task, round=0, deadline=now + self._deadline)
        self._learners.dispatch(self._order)
        return True

    def returned(self, learner: str) -> bool:
        """A learner has reconnected: if it was asked, it is asked again, and that is said."""
        if self._order is None or self._order.task.learner != learner:
            return False
        self._learners.dispatch(self._order)
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
        if self._order is None or self._order.task.learner not in self._learners.ready:
            self._order = None
        elif self._order.deadline is not None and now >= self._order.deadline:
            self._learners.discard(self._order.task, "the initial weights did not arrive in time")
            self.failed(self._order.task)
        return self._order is not None

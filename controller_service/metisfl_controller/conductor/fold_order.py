"""Deterministic aggregation: updates are added in their learners' order, whatever order they arrive in.

Floating-point sums depend on the order of their terms. An update is therefore held back until every learner before it
has delivered, or is out of the round for good; a learner that is lost may return, so it is waited for until the round
closes. Only a learner that joins a round already under way may find that others behind it have been added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from metisfl_controller.rounds.learners import by_number
from metisfl_controller.rounds.participation import Participant, Standing
from metisfl_controller.rounds.tasks import TaskId


class FoldOrder:
    """Verified updates of one round at a time, with their weights."""

    def __init__(self, participants: Callable[[], Mapping[str, Participant]]) -> None:
        """`participants` of the open round, by learner; they only ever become more."""
        self._participants = participants
        self._arrived: dict[str, tuple[TaskId, float]] = {}
        self._done: set[str] = set()
        self._line: list[str] = []
        self._at = 0

    def reset(self) -> list[TaskId]:
        """Begin a round; returns what an abandoned one has left."""
        left = [task for task, _ in self._arrived.values()]
        self._arrived.clear()
        self._done.clear()
        self._line, self._at = [], 0
        return left

    def arrived(self, task: TaskId, weight: float) -> None:
        self._arrived[task.learner] = (task, weight)

    def next(self, *, closing: bool = False) -> tuple[TaskId, float] | None:
        """The update to add now, if it is there; when the round is `closing`, nobody is waited for."""
        learner = next(iter(by_number(self._arrived)), None) if closing else self._awaited()
        if learner is None or learner not in self._arrived:
            return None
        self._done.add(learner)
        return self._arrived.pop(learner)

    def _awaited(self) -> str | None:
        participants = self._participants()
        if len(participants) != len(self._line):
            self._line, self._at = by_number(participants), 0
        while self._at < len(self._line):
            learner = self._line[self._at]
            if learner not in self._done and participants[learner].standing is not Standing.EXCLUDED:
                return learner
            self._at += 1
        return None

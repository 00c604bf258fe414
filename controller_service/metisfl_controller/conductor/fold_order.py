"""When a verified upload is given to the rule: as it comes, when it is its turn, or with all others at the end.

Deterministic aggregation adds updates in their learners' order, whatever order they arrive in: floating-point sums
depend on the order of their terms. An update is therefore held back until every learner before it has delivered, or is
out of the round for good; a learner that is lost may return, so it is waited for until the round closes. Only a learner
that joins a round already under way, or gets back its lost place, may find that others behind it have been added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from metisfl_controller.aggregation.rule import Rule
from metisfl_controller.rounds.learners import by_number
from metisfl_controller.rounds.messages import Fold
from metisfl_controller.rounds.participation import Participant, Standing
from metisfl_controller.rounds.tasks import TaskId

_WITHOUT_UPDATE = (Standing.EXCLUDED, Standing.RELEASED)


class FoldOrder(ABC):
    """Verified uploads of one round at a time, until it is their turn."""

    def __init__(self) -> None:
        self._held: dict[TaskId, Fold] = {}

    def arrived(self, fold: Fold) -> None:
        self._held[fold.task] = fold

    def holds(self, fold: Fold) -> bool:
        return fold.task in self._held

    @abstractmethod
    def next(self) -> Fold | None:
        """The upload whose turn it is, if it is there; it is not held any more."""

    def rest(self) -> list[Fold]:
        """All that is held when the round closes, in the learners' order. They are not held any more."""
        ranks = {learner: rank for rank, learner in enumerate(by_number({task.learner for task in self._held}))}
        left = sorted(self._held.values(), key=lambda fold: ranks[fold.task.learner])
        self._held.clear()
        return left

    def reset(self) -> list[Fold]:
        """Begin a round; returns what an abandoned one has left."""
        return self.rest()


class AsTheyCome(FoldOrder):
    """Everything at once."""

    def next(self) -> Fold | None:
        return self._held.pop(next(iter(self._held))) if self._held else None


class AllAtTheEnd(FoldOrder):
    """For rules that gather: nothing until the round closes."""

    def next(self) -> Fold | None:
        return None


class ByLearner(FoldOrder):
    """Deterministic: one upload of each learner, in the learners' order."""

    def __init__(self, participants: Callable[[], Mapping[str, Participant]]) -> None:
        """`participants` of the open round, by learner; they only ever become more."""
        super().__init__()
        self._participants = participants
        self._of: dict[str, TaskId] = {}
        self._done: set[str] = set()
        self._line: list[str] = []
        self._at = 0

    def arrived(self, fold: Fold) -> None:
        super().arrived(fold)
        self._of[fold.task.learner] = fold.task

    def next(self) -> Fold | None:
        learner = self._awaited()
        if learner is None or learner not in self._of:
            return None
        self._done.add(learner)
        return self._held.pop(self._of.pop(learner))

    def rest(self) -> list[Fold]:
        self._of.clear()
        return super().rest()

    def reset(self) -> list[Fold]:
        self._done.clear()
        self._line, self._at = [], 0
        return super().reset()

    def _awaited(self) -> str | None:
        participants = self._participants()
        if len(participants) != len(self._line):
            self._line, self._at = by_number(participants), 0
        while self._at < len(self._line):
            learner = self._line[self._at]
            if learner not in self._done and participants[learner].standing not in _WITHOUT_UPDATE:
                return learner
            self._at += 1
        return None


def order_of(rule: Rule, participants: Callable[[], Mapping[str, Participant]], *, deterministic: bool) -> FoldOrder:
    """`participants`: of the open round."""
    if rule.gathers:
        return AllAtTheEnd()
    return ByLearner(participants) if deterministic else AsTheyCome()

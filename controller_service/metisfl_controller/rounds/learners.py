"""The learners that are ready for work, and what the state machine tells them."""

from __future__ import annotations

from collections.abc import Callable, Set

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.names import by_number as by_number
from metisfl_controller.rounds.selection.selector import Selector
from metisfl_controller.rounds.tasks import Kind, Order, TaskId


class Learners:
    """Names the tasks of one federation and one controller's incarnation, which found version `inherited`; `say` takes
    the commands."""

    def __init__(
        self,
        federation: str,
        incarnation: int,
        inherited: int | None,
        say: Callable[[m.Command], None],
        selector: Selector,
    ) -> None:
        self.selector = selector
        self.ready: dict[str, m.LearnerReady] = {}
        """What each came with, until it is given work."""
        self._federation = federation
        self._incarnation = incarnation
        self._inherited = -1 if inherited is None else inherited
        self._say = say

    def choose(self, round: int, extra: int = 0, also: Set[str] = frozenset()) -> list[str]:
        """Who of the ready is asked to take part in this round, in natural order: those selected, `extra` more than are
        needed, and those in `also`. The others are told to wait, and rid of what they came with."""
        if remark := self.selector.remark(self.ready):
            self._say(m.Remark(remark))
        chosen = by_number({*self.selector.choose(self.ready, round, extra), *(also & self.ready.keys())})
        for learner in by_number(set(self.ready) - set(chosen)):
            self.discard_but(None, self.unpack(learner))
            self._say(m.Wait(learner, f"not selected for round {round}"))
        return chosen

    def task(self, kind: Kind, version: int, learner: str, attempt: int) -> TaskId:
        return TaskId(self._federation, self._incarnation, kind, version, learner, attempt)

    def trains_from(self, task: TaskId, version: int | None) -> bool:
        """Whether the task, perhaps of an earlier controller, turns this version into the next.

        An earlier controller may have made versions that are lost, such as those after a backup: this one's of the same
        number are others.
        """
        if task.incarnation != self._incarnation and task.base_version > self._inherited:
            return False
        return (task.federation, task.kind, task.base_version) == (self._federation, Kind.TRAIN, version)

    def unpack(self, learner: str) -> m.LearnerReady:
        """What a ready learner came with. It is sorted out now, so it is forgotten."""
        brought, self.ready[learner] = self.ready[learner], m.LearnerReady(learner)
        return brought

    def discard_but(self, kept: str | None, brought: m.LearnerReady) -> None:
        """Rid a learner of what it came with, one task excepted."""
        for text in brought.tasks:
            if text != kept:
                self._say(m.Discard(brought.learner, text, "its round is over"))

    def dispatch(self, order: Order) -> None:
        self._say(m.Dispatch(order))

    def resend(self, order: Order) -> None:
        self._say(m.Resend(order))

    def discard(self, task: TaskId, reason: str) -> None:
        """Tell the task's learner, if it is there, that its result is not wanted any more."""
        if task.learner in self.ready:
            self._say(m.Discard(task.learner, str(task), reason))

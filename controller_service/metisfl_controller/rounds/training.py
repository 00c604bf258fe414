"""The open round: gives learners their part in it and follows what becomes of each, as the protocol decides."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Evaluation
from metisfl_controller.rounds.learners import Learners, by_number
from metisfl_controller.rounds.participation import OpenRound, Standing
from metisfl_controller.rounds.protocols.protocol import AskAgain, RoundProtocol, Step
from metisfl_controller.rounds.tasks import Kind, Order, TaskId


@dataclass
class Training:
    """One round from its first task to the command that commits it."""

    round: OpenRound
    protocol: RoundProtocol
    learners: Learners

    def begin(self, evaluation: Evaluation | None) -> None:
        """Everybody who is ready takes part; with an evaluation, of the base version as well."""
        self.round.evaluation = evaluation
        for learner in by_number(self.learners.ready):
            self._assign(learner)

    def appeared(self, learner: str) -> bool:
        """A learner is ready in mid-round; says whether it has been given something to do."""
        admitted = self.protocol.admits(self.round, learner)
        if admitted:
            self._assign(learner)
        return admitted

    def next_step(self, now: float) -> Step | None:
        return self.protocol.next_step(self.round, self.learners.ready.keys(), now)

    def ask_again(self, step: AskAgain) -> None:
        self.round.attempt += 1
        self.round.deadline_at = step.deadline_at
        for learner in by_number(step.learners):
            self._assign(learner)

    def commit(self) -> m.CommitRound:
        return m.CommitRound(
            number=self.round.number,
            attempts=self.round.attempt,
            started_at=self.round.started_at,
            participants=tuple(by_number(self.round.participants)),
            contributors=self.round.having(Standing.DONE),
            lost=self.round.having(Standing.PENDING, Standing.LOST, Standing.EXCLUDED),
        )

    def dismiss(self, reason: str) -> None:
        """Those who are still at work may stop."""
        for learner in self.round.having(Standing.PENDING):
            self.learners.discard(self.round.participants[learner].task, reason)

    def _assign(self, learner: str) -> None:
        """Give a ready learner its part: what it already holds or works on, what it had before, or a new task."""
        brought = self.learners.unpack(learner)
        usable = next((text for text in brought.tasks if self._usable(text, learner)), None)
        participant = self.round.participants.get(learner)
        if usable:
            task = TaskId.parse(usable)
        elif participant:
            task = participant.task
        else:
            task = self.learners.task(Kind.TRAIN, self.round.base_version, learner, self.round.attempt)
        self.round.assign(task)
        order = Order(task, self.round.number, self.round.evaluation is not None, self.round.deadline_at)
        if usable is None:
            self.learners.dispatch(order)
        elif usable != brought.running:
            self.learners.resend(order)
        self.learners.discard_but(usable, brought)

    def _usable(self, text: str, learner: str) -> bool:
        """Whether a task of before (perhaps of an earlier controller) still serves this round."""
        try:
            task = TaskId.parse(text)
        except ValueError:
            return False
        return task.learner == learner and self.learners.trains_from(task, self.round.base_version)

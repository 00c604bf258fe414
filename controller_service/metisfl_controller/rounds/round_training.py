"""Training in rounds: gives learners their part in each and follows what becomes of it, as the protocol decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Evaluation, Report
from metisfl_controller.rounds.learners import Learners, by_number
from metisfl_controller.rounds.participation import OpenRound, Participant, Standing
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.protocols.protocol import AskAgain, RoundProtocol
from metisfl_controller.rounds.tasks import Kind, Order, TaskId
from metisfl_controller.rounds.training import Judged, RoundStatus, Step
from metisfl_controller.rounds.work import Work


class RoundTraining:
    """Round r turns version r - 1 into version r; see `Training`."""

    def __init__(
        self, plan: Plan, protocol: RoundProtocol, learners: Learners, say: Callable[[m.Command], None]
    ) -> None:
        self.round: OpenRound | None = None
        """From its first task until it is committed or abandoned."""
        self._plan = plan
        self._protocol = protocol
        self._learners = learners
        self._say = say
        self._closed = True
        """Nobody can have a part in the round any more."""
        self._late: dict[str, TaskId] = {}
        """Tasks of the last round that were not done when it closed, and whose results count in the next."""

    # ---- what is shown and what is expected

    @property
    def status(self) -> RoundStatus | None:
        if self.round is None:
            return None
        return RoundStatus(
            number=self.round.number,
            attempt=self.round.attempt,
            participants=len(self.round.participants),
            contributions=self.round.done,
            quorum=self.round.quorum,
            started_at=self.round.started_at,
            deadline_at=self.round.deadline_at,
        )

    @property
    def participants(self) -> Mapping[str, Participant]:
        return self.round.participants if self.round is not None else {}

    @property
    def versions(self) -> Set[int]:
        late = {task.base_version for task in self._late.values()}
        return late if self._open is None else late | {p.task.base_version for p in self._open.participants.values()}

    @property
    def _open(self) -> OpenRound | None:
        return None if self._closed else self.round

    def expects(self, task: TaskId) -> bool:
        return self._open is not None and self._open.expects(task)

    def will_expect(self, task: TaskId, version: int | None) -> bool:
        if self._late.get(task.learner) == task:
            return True
        return self.round is None and self._learners.trains_from(task, version)

    def why_late(self, task: TaskId) -> str:
        return "the round has closed"

    # ---- a round's course

    def adopt(self, plan: Plan) -> None:
        self._plan = self._protocol.plan = plan

    def begin(self, version: int, reports: Mapping[str, Report], now: float) -> None:
        """Whoever is selected takes part, and whoever is late with the round before."""
        chosen = self._learners.choose(version + 1, self._plan.over_select, also=self._late.keys())
        self.round = self._protocol.open(version, set(chosen), now)
        self._closed = False
        if self._plan.evaluates(version):
            self.round.evaluation = Evaluation(version, dict(reports))
        self._say(m.BeginRound(self.round.number))
        for learner in chosen:
            self._assign(self.round, learner)

    def next_step(self, now: float, *, last: bool) -> Step | None:
        assert self._open is not None
        step = self._protocol.next_step(self._open, self._learners.ready.keys(), now)
        if isinstance(step, AskAgain) and last:
            return None
        if isinstance(step, AskAgain):
            self._open.attempt += 1
            self._open.deadline_at = step.deadline_at
            drawn = self._learners.selector.choose(step.candidates, self._open.number)
            for learner in by_number({*step.learners, *drawn}):
                self._assign(self._open, learner)
            return None
        return step

    def commit(self) -> None:
        assert self.round is not None
        self._closed = True
        self._say(self._commit_round(self.round))
        if self._plan.late_updates:
            # A result that is late by a second round is of no use.
            self._late = {
                learner: task
                for learner in self._unfinished(self.round)
                if (task := self.round.participants[learner].task).base_version == self.round.base_version
            }
        for learner in self.round.having(Standing.PENDING):
            if learner not in self._late:
                self._learners.discard(self.round.participants[learner].task, "the round closed without it")

    def _unfinished(self, closed: OpenRound) -> list[str]:
        """Who is at work, or was when it was lost. Who is there and yet lost has failed, and is at nothing any more."""
        gone = [learner for learner in closed.having(Standing.LOST) if learner not in self._learners.ready]
        return [*closed.having(Standing.PENDING), *gone]

    def _commit_round(self, closed: OpenRound) -> m.CommitRound:
        done = closed.having(Standing.DONE)
        return m.CommitRound(
            number=closed.number,
            attempts=closed.attempt,
            started_at=closed.started_at,
            participants=tuple(by_number(closed.participants)),
            contributors=done,
            lost=closed.having(Standing.PENDING, Standing.LOST, Standing.EXCLUDED, Standing.RELEASED),
            tasks=tuple(closed.participants[learner].task for learner in done),
        )

    def committed(self, version: int) -> None:
        self.round = None

    def abandon(self, reason: str) -> None:
        tasks = list(self._late.values())
        if self._open is not None:
            tasks += [self._open.participants[name].task for name in self._open.having(Standing.PENDING)]
        for task in dict.fromkeys(tasks):
            self._learners.discard(task, reason)
        self._late.clear()
        self.round, self._closed = None, True

    # ---- what learners do

    def appeared(self, learner: str, now: float) -> bool:
        late = self._late.get(learner)
        returned = late is not None and str(late) in self._learners.ready[learner].tasks
        if not returned:
            self._late.pop(learner, None)
        if self._open is None:
            return False
        admitted = returned or self._protocol.admits(self._open, learner)
        if admitted:
            self._assign(self._open, learner)
        return admitted

    def lost(self, learner: str) -> None:
        self._stands(learner, Standing.LOST)

    def heed_places(self, has_place: Callable[[str], bool]) -> None:
        if self._open is None:
            return
        for learner in self._open.having(Standing.LOST, Standing.RELEASED):
            released = self._open.participants[learner].standing is Standing.RELEASED
            if not released and not has_place(learner):
                self._open.release(learner)
            elif released and has_place(learner):
                self._open.restore(learner)
                if learner in self._learners.ready:
                    self._assign(self._open, learner)

    def delivered(self, task: TaskId, work: Work, now: float) -> None:
        assert self._open is not None
        self._late.pop(task.learner, None)
        self._open.delivered(task.learner)
        self._protocol.delivered(task.learner, work)
        self._say(m.Fold(task, self._plan.weigh(work), work.batches))

    def rejected(self, task: TaskId) -> None:
        self._stands(task.learner, Standing.EXCLUDED)

    def failed(self, task: TaskId) -> None:
        if self._late.get(task.learner) == task:
            del self._late[task.learner]
        elif self.expects(task):
            self._stands(task.learner, Standing.LOST)

    def _stands(self, learner: str, standing: Standing) -> None:
        if self._open is not None:
            self._open.stands(learner, standing)

    def _assign(self, open_round: OpenRound, learner: str) -> None:
        """Give a ready learner its part: what it already holds or works on, what it had before, or a new task."""
        brought = self._learners.unpack(learner)
        late = self._late.pop(learner, None)
        participant = open_round.participants.get(learner)
        before = participant.task if participant else late
        usable = next((text for text in brought.tasks if self._usable(text, learner, before)), None)
        if usable:
            task = TaskId.parse(usable)
        elif before and (before == late or before.base_version == open_round.base_version):
            task = before
        else:
            task = self._learners.task(Kind.TRAIN, open_round.base_version, learner, open_round.attempt)
        open_round.assign(task)
        self._learners.selector.took_part(learner, open_round.number)
        if usable is None and task != late:
            self._learners.dispatch(self._order(open_round, task))
        elif usable is not None and usable != brought.running:
            self._learners.resend(self._order(open_round, task))
        self._learners.discard_but(usable, brought)

    def _order(self, open_round: OpenRound, task: TaskId) -> Order:
        return Order(
            task,
            open_round.number,
            evaluate=open_round.evaluation is not None,
            deadline=open_round.deadline_at,
            steps=self._protocol.steps(task.learner),
        )

    def _usable(self, text: str, learner: str, before: TaskId | None) -> bool:
        """Whether a task of before (perhaps of an earlier controller) still serves this round."""
        try:
            task = TaskId.parse(text)
        except ValueError:
            return False
        assert self.round is not None
        return task == before or (task.learner == learner and self._learners.trains_from(task, self.round.base_version))

    # ---- metrics

    def reported(self, learner: str, version: int, report: Report) -> None:
        if self.round is not None and self.round.evaluation is not None and self.round.evaluation.awaits(version):
            self.round.reported(learner, report)

    def judged(self, now: float, *, closing: bool) -> Judged | None:
        evaluation = self.round.evaluation if self.round is not None else None
        if self.round is None or evaluation is None or evaluation.settled:
            return None
        if not closing and not self.round.all_evaluated:
            return None
        evaluation.settled = True
        return Judged(evaluation, enough=len(evaluation.reports) >= self.round.quorum)

"""The round state machine: events in, commands out, time handed in. No I/O, no clock, no threads.

    gathering → initialising → (between → training → committing)* → evaluating → ended

Round r turns model version r - 1 into version r; version 0 is the initial model. A version's metrics are reported by
learners that are given the version to train from, the last version's by an evaluation of its own.

This file knows the phases and when one becomes another. What happens within them: `gathering`, `initial`, `training`
as the federation's protocol has it, and `final`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Evaluation, Report
from metisfl_controller.rounds.evaluators import Evaluators
from metisfl_controller.rounds.final import FinalEvaluation
from metisfl_controller.rounds.gathering import Gathering
from metisfl_controller.rounds.initial import InitialModel
from metisfl_controller.rounds.learners import Learners
from metisfl_controller.rounds.participation import Participant
from metisfl_controller.rounds.phases import Phase, Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.protocols.choice import training_of
from metisfl_controller.rounds.selection.selector import Selector
from metisfl_controller.rounds.tasks import Kind, TaskId
from metisfl_controller.rounds.termination.conclusion import Conclusion
from metisfl_controller.rounds.termination.judge import Judge
from metisfl_controller.rounds.termination.termination import Termination
from metisfl_controller.rounds.training import Close, GiveUp, Judged, RoundStatus


class Machine:
    """One federation's rounds."""

    def __init__(self, plan: Plan, federation: str, incarnation: int, resumed: Resumed, now: float) -> None:
        self.plan = plan
        self._next_plan: Plan | None = None
        self.phase = resumed.phase
        self.version = resumed.version
        self.started_at = resumed.started_at
        self._out: list[m.Command] = []
        self._learners = Learners(
            federation, incarnation, resumed.version, self._out.append, Selector(plan.selection, resumed.learners)
        )
        self._gathering = Gathering(self._learners, plan)
        self._initial = InitialModel(self._learners, plan.round_deadline)
        self._training = training_of(plan, self._learners, self._out.append, resumed)
        self.termination = Termination(plan, resumed.observed)
        self._judging = Judge(self.termination, self._out.append)
        self.evaluators = Evaluators(self._learners, self._out.append, resumed.version)
        self._final: FinalEvaluation | None = None
        self._returning = resumed.version is not None
        """An earlier controller's learners are finding their way back."""
        self._early: dict[str, Report] = {}
        """Metrics of the present version that came before its round began, from learners that reconnected."""
        self._now = now

    @property
    def ready(self) -> Mapping[str, m.LearnerReady]:
        """The learners that are there and can work."""
        return self._learners.ready

    @property
    def round(self) -> RoundStatus | None:
        """The round under way, until it is committed or abandoned."""
        return self._training.status

    @property
    def participants(self) -> Mapping[str, Participant]:
        """Who has a part in the round under way."""
        return self._training.participants

    @property
    def versions(self) -> Set[int]:
        """The model versions that learners and evaluators may ask for."""
        newest = set() if self.version is None else {self.version}
        return newest | self._training.versions | self.evaluators.versions

    def handle(self, event: m.Event, now: float) -> list[m.Command]:
        """Take in one event at time `now` (seconds, never going back) and say what to do."""
        self._now = now
        self._learners.selector.hear(event)
        if self.phase is not Phase.ENDED:
            self.evaluators.take(event)
            self._take(event)
            self._advance()
        commands = self._out.copy()
        self._out.clear()
        return commands

    def expects(self, task: TaskId) -> bool:
        """Whether this task's result would count if it arrived now."""
        return self._initial.expects(task) if task.kind is Kind.INITIALISE else self._training.expects(task)

    def will_expect(self, task: TaskId) -> bool:
        """Whether this task's result may count in the round that is about to begin."""
        return self.phase in (Phase.BETWEEN, Phase.COMMITTING) and self._training.will_expect(task, self.version)

    def why_late(self, task: TaskId) -> str:
        """Why the result of a task that is not expected does not count."""
        return self._training.why_late(task)

    # ---- events

    def _take(self, event: m.Event) -> None:
        match event:
            case m.LearnerReady():
                self._learner_ready(event)
            case m.LearnerLost(learner):
                self._learners.ready.pop(learner, None)
                self._training.lost(learner)
                self._heed_places()
            case m.InitialModelVerified(task) if self.expects(task):
                self._initial.arrived()
                self.phase = Phase.COMMITTING
                self._out.append(m.AdoptInitialModel(task))
            case m.UpdateVerified(task, work) if self.expects(task):
                self._training.delivered(task, work, self._now)
            case m.UpdateRejected(task) if self.expects(task):
                self._training.rejected(task)
            case m.TaskFailed(task):
                self._task_failed(task)
            case m.Evaluated():
                self._evaluated_by(event)
            case m.Committed(version):
                self.version, self._early = version, {}
                self._training.committed(version)
                self.phase = Phase.BETWEEN
            case m.AggregationFailed(message):
                self._fail("AggregationFailed", message)
            case m.PlanChanged(plan):
                self._next_plan = plan
                self._heed_places()
            case _:
                pass

    def _heed_places(self) -> None:
        """By the newest plan, also in the middle of a round: one that waits for who was scaled away would not end."""
        self._training.heed_places((self._next_plan or self.plan).has_place)

    def _learner_ready(self, event: m.LearnerReady) -> None:
        learner = event.learner
        self._learners.ready[learner] = event
        match self.phase:
            case Phase.INITIALISING if self._initial.returned(learner):
                pass
            case phase if phase.has_training and self._training.appeared(learner, self._now):
                pass
            case Phase.EVALUATING if self._final and self._final.appeared(learner):
                pass
            case _:
                self._out.append(m.Wait(learner, self._why_wait()))

    def _task_failed(self, task: TaskId) -> None:
        self._initial.failed(task)
        self._training.failed(task)
        if self._final is not None:
            self._final.failed(task)

    def _evaluated_by(self, event: m.Evaluated) -> None:
        if self.phase is Phase.BETWEEN and event.version == self.version:
            self._early[event.learner] = event.report
        self._training.reported(event.learner, event.version, event.report)
        if self._final is not None:
            self._final.reported(event.learner, event.version, event.report)

    # ---- progress

    def _advance(self) -> None:
        """Take every step that is possible now."""
        steps = {
            Phase.GATHERING: self._gather,
            Phase.INITIALISING: self._watch_initialisation,
            Phase.BETWEEN: self._between,
            Phase.TRAINING: self._watch_round,
            Phase.EVALUATING: self._watch_final_evaluation,
        }
        before = None
        while self.phase is not before:
            before = self.phase
            if self._next_plan is not None and self.phase in (Phase.GATHERING, Phase.BETWEEN):
                self._adopt(self._next_plan)
            self._heed_evaluators()
            self._watch_attendance()
            step = steps.get(self.phase)
            if step:
                step()

    def _adopt(self, plan: Plan) -> None:
        """Between rounds only, so that no round is judged by two plans."""
        self.plan, self._next_plan = plan, None
        self._gathering.plan, self._initial.deadline = plan, plan.round_deadline
        self._learners.selector.policy = plan.selection
        self.termination.adopt(plan)
        self._training.adopt(plan)
        self._out.append(m.PlanAdopted())

    def _gather(self) -> None:
        if not self._gathering.done(self._now):
            return
        if self._initial.ask(self._now):
            self.phase = Phase.INITIALISING
        else:
            self._fail("InitialModelFailed", "no learner could hand over initial weights; see the learners' logs")

    def _watch_initialisation(self) -> None:
        if not self._initial.under_way(self._now):
            self.phase = Phase.GATHERING

    def _between(self) -> None:
        assert self.version is not None
        ending = self.termination.by_rounds(self.version) or self._out_of_time
        if ending is not None:
            self._evaluate_last(ending)
        elif self._gathering.done(self._now) if self._returning else self._gathering.enough:
            self._returning = False
            self.started_at = self._now if self.started_at is None else self.started_at
            self.phase = Phase.TRAINING
            self._training.begin(self.version, self._early, self._now)

    def _watch_round(self) -> None:
        if self._judge(self._training.judged(self._now, closing=False)):
            return
        out_of_time = self._out_of_time
        match self._training.next_step(self._now, last=out_of_time is not None):
            case Close():
                if not self._judge(self._training.judged(self._now, closing=True)):
                    self.phase = Phase.COMMITTING
                    self._training.commit()
            case _ if out_of_time is not None:
                self._evaluate_last(out_of_time)
            case GiveUp(reason, message):
                self._fail(reason, message)

    def _judge(self, judged: Judged | None) -> bool:
        """The metrics of a version are as complete as they will be; says whether they end the federation."""
        if judged is None:
            return False
        if conclusion := self._judging.record(judged.evaluation, judged.enough):
            self._conclude(conclusion, judged.evaluation.version)
        return conclusion is not None

    def _heed_evaluators(self) -> None:
        """What evaluators have found may end the federation, but not while a version is being committed."""
        if self.phase not in (Phase.BETWEEN, Phase.TRAINING, Phase.EVALUATING):
            return
        for observed in self.evaluators.conclusive():
            conclusion = self.termination.observe(observed)
            if conclusion is not None and self._final is not None:
                self._final.conclusion = conclusion
            elif conclusion is not None:
                self._conclude(conclusion, observed.version)

    def _watch_attendance(self) -> None:
        watched = self.phase in (Phase.GATHERING, Phase.INITIALISING, Phase.BETWEEN, Phase.TRAINING)
        if watched and (conclusion := self.termination.by_attendance(self.ready, self._now)):
            self._end(conclusion)

    # ---- the end

    def _conclude(self, conclusion: Conclusion, version: int) -> None:
        """End with this version: the newest one is evaluated as far as it has not been."""
        if version == self.version:
            self._evaluate_last(conclusion)
        else:
            self._end(conclusion, version)

    def _evaluate_last(self, conclusion: Conclusion) -> None:
        assert self.version is not None
        self._training.abandon(conclusion.message)
        self.phase = Phase.EVALUATING
        missing = None if self._judging.knows(self.version) else Evaluation(self.version, dict(self._early))
        self._final = FinalEvaluation.begin(
            conclusion, self.plan, missing, self._learners, self.evaluators, self.version, self._now, self._returning
        )

    def _watch_final_evaluation(self) -> None:
        assert self._final is not None
        if not self._final.done(self._now):
            return
        part = self._final.learners_part
        if part is not None and (conclusion := self._judging.record(part.evaluation, conclusive=True)):
            self._final.conclusion = conclusion
        self._end(self._final.told(self.termination.remark))

    def _fail(self, reason: str, message: str) -> None:
        self._end(Conclusion(reason, message, complete=False))

    def _end(self, conclusion: Conclusion, published: int | None = None) -> None:
        """Publish the newest version, or another one."""
        self._training.abandon("the federation has ended")
        self.phase = Phase.ENDED
        version = self.version if published is None else published
        self._out.append(m.End(conclusion.complete, conclusion.reason, conclusion.message, version))

    @property
    def _out_of_time(self) -> Conclusion | None:
        return self.termination.by_time(self.started_at, self._now)

    def _why_wait(self) -> str:
        if self.phase in (Phase.GATHERING, Phase.BETWEEN):
            return f"waiting for learners: {len(self.ready)} ready, {self.plan.min_learners} needed"
        return "waiting for the next round"

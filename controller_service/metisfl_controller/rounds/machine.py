"""The round state machine: events in, commands out, time handed in. No I/O, no clock, no threads.

    gathering → initialising → (between → training → committing)* → evaluating → ended

Round r turns model version r - 1 into version r; version 0 is the initial model. A version's metrics are reported by
the learners that download it for the next round, the last version's by an evaluation of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Evaluation, Report
from metisfl_controller.rounds.participation import OpenRound, Participant, Standing
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.tasks import Kind, Order, TaskId


class Phase(StrEnum):
    GATHERING = "gathering"
    INITIALISING = "initialising"
    BETWEEN = "between"
    TRAINING = "training"
    COMMITTING = "committing"
    EVALUATING = "evaluating"
    ENDED = "ended"


@dataclass(frozen=True)
class Resumed:
    """Where an earlier controller left off; the default is a new federation.

    The version is evaluated again even if its metrics are known: the controller may have been killed after it recorded
    them and before it drew its conclusion from them.
    """

    version: int | None = None
    started_at: float | None = None
    ended: bool = False


@dataclass
class FinalEvaluation:
    """The last version is being evaluated; `reason` and `message` say why there are no more rounds.

    Until `complete_at`, learners that are not there yet are waited for; until `deadline_at`, those that were asked.
    """

    evaluation: Evaluation
    complete_at: float
    deadline_at: float
    reason: str
    message: str
    asked: dict[str, TaskId]


class Machine:
    """One federation's rounds, with the Synchronous protocol: everybody trains from the same version."""

    def __init__(self, plan: Plan, federation: str, incarnation: int, resumed: Resumed, now: float) -> None:
        self.plan = plan
        self.phase = _first_phase(resumed)
        self.version = resumed.version
        self.started_at = resumed.started_at
        self.ready: dict[str, m.LearnerReady] = {}
        self.round: OpenRound | None = None
        self.initialising: Order | None = None
        self.final: FinalEvaluation | None = None
        self._federation = federation
        self._incarnation = incarnation
        self._evaluated = False
        """Whether this controller knows the metrics of the present version."""
        self._returning = resumed.version is not None
        """An earlier controller's learners are finding their way back."""
        self._early: dict[str, Report] = {}
        """Metrics of the present version that came before its round began, from learners that reconnected."""
        self._enough_since: float | None = None
        self._tried_to_initialise: set[str] = set()
        self._now = now
        self._out: list[m.Command] = []

    def handle(self, event: m.Event, now: float) -> list[m.Command]:
        """Take in one event at time `now` (seconds, never going back) and say what to do."""
        self._now, self._out = now, []
        if self.phase is not Phase.ENDED:
            self._take(event)
            self._advance()
        return self._out

    def expects(self, task: TaskId) -> bool:
        """Whether this task's result would count if it arrived now."""
        if task.kind is Kind.INITIALISE:
            return self.initialising is not None and self.initialising.task == task
        if self.round is None or self.phase is not Phase.TRAINING:
            return False
        participant = self.round.participants.get(task.learner)
        if participant is None or participant.task != task:
            return False
        return participant.standing in (Standing.PENDING, Standing.LOST)

    def will_expect(self, task: TaskId) -> bool:
        """Whether this task, begun before a restart, may count in the round that is about to begin."""
        return self.phase is Phase.BETWEEN and (task.federation, task.kind, task.base_version) == (
            self._federation,
            Kind.TRAIN,
            self.version,
        )

    # ---- events

    def _take(self, event: m.Event) -> None:
        match event:
            case m.LearnerReady():
                self._learner_ready(event)
            case m.LearnerLost(learner):
                self.ready.pop(learner, None)
                self._stands(learner, Standing.LOST)
            case m.InitialModelVerified(task) if self.expects(task):
                self.initialising = None
                self.phase = Phase.COMMITTING
                self._out.append(m.AdoptInitialModel(task))
            case m.UpdateVerified(task, examples) if self.expects(task):
                assert self.round is not None
                self.round.participants[task.learner].standing = Standing.DONE
                self._out.append(m.Fold(task, float(examples)))
            case m.UpdateRejected(task) if self.expects(task):
                self._stands(task.learner, Standing.EXCLUDED)
            case m.TaskFailed(task):
                self._task_failed(task)
            case m.Evaluated():
                self._evaluated_by(event)
            case m.Committed(version):
                self.version, self.round, self._early, self._evaluated = version, None, {}, False
                self.phase = Phase.BETWEEN
            case m.AggregationFailed(message):
                self._end(False, "AggregationFailed", message)
            case _:
                pass

    def _learner_ready(self, event: m.LearnerReady) -> None:
        self.ready[event.learner] = event
        participant = self.round.participants.get(event.learner) if self.round else None
        if self.phase is Phase.TRAINING and participant and participant.standing in (Standing.LOST, Standing.PENDING):
            self._assign(event.learner)
            return
        if self.phase is Phase.INITIALISING and self.initialising and self.initialising.task.learner == event.learner:
            self._out.append(m.Dispatch(self.initialising))
            return
        if self.phase is Phase.EVALUATING:
            self._ask_to_evaluate(event.learner)
            return
        self._out.append(m.Wait(event.learner, self._why_wait()))

    def _stands(self, learner: str, standing: Standing) -> None:
        """A participant that has not delivered is lost or excluded; what was delivered stays."""
        participant = self.round.participants.get(learner) if self.round else None
        if participant and participant.standing is Standing.PENDING:
            participant.standing = standing

    def _task_failed(self, task: TaskId) -> None:
        if self.initialising is not None and self.initialising.task == task:
            self._tried_to_initialise.add(task.learner)
            self._gather_again()
        elif self.round is not None and self.expects(task):
            self._stands(task.learner, Standing.LOST)
        elif self.final is not None and self.final.asked.get(task.learner) == task:
            del self.final.asked[task.learner]

    def _evaluated_by(self, event: m.Evaluated) -> None:
        if self.phase is Phase.BETWEEN and event.version == self.version:
            self._early[event.learner] = event.report
        for evaluation in (self.round and self.round.evaluation, self.final and self.final.evaluation):
            if evaluation and evaluation.version == event.version and not evaluation.settled:
                evaluation.reports[event.learner] = event.report

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
            step = steps.get(self.phase)
            if step:
                step()

    def _gather(self) -> None:
        if not self._gathered():
            return
        candidates = sorted(set(self.ready) - self._tried_to_initialise, key=natural_order)
        if not candidates:
            self._end(False, "InitialModelFailed", "no learner could hand over initial weights; see the learners' logs")
            return
        learner = candidates[0]
        task = self._task(Kind.INITIALISE, 0, learner, len(self._tried_to_initialise) + 1)
        self.initialising = Order(task, round=0, deadline=self._now + self.plan.round_deadline)
        self.phase = Phase.INITIALISING
        self._out.append(m.Dispatch(self.initialising))

    def _gathered(self) -> bool:
        """Whether enough learners are ready, and the rest have had some time to appear."""
        if len(self.ready) < self.plan.min_learners:
            self._enough_since = None
            return False
        if self._enough_since is None:
            self._enough_since = self._now
        everybody = len(self.ready) >= self.plan.expected_learners
        return everybody or self._now - self._enough_since >= self.plan.gather_grace

    def _watch_initialisation(self) -> None:
        assert self.initialising is not None
        learner = self.initialising.task.learner
        if learner not in self.ready:
            self._gather_again()
        elif self.initialising.deadline is not None and self._now >= self.initialising.deadline:
            self._tried_to_initialise.add(learner)
            self._discard(learner, self.initialising.task, "the initial weights did not arrive in time")
            self._gather_again()

    def _gather_again(self) -> None:
        self.initialising, self.phase = None, Phase.GATHERING

    def _between(self) -> None:
        assert self.version is not None
        if self.version >= self.plan.max_rounds:
            self._evaluate_last("MaxRoundsReached", f"all {self.plan.max_rounds} rounds are done")
        elif self._out_of_time:
            self._evaluate_last("MaxDurationReached", self._duration_message)
        elif self._gathered() if self._returning else len(self.ready) >= self.plan.min_learners:
            self._returning = False
            self._begin_round()

    def _begin_round(self) -> None:
        assert self.version is not None
        if self.started_at is None:
            self.started_at = self._now
        self.round = OpenRound(
            number=self.version + 1,
            base_version=self.version,
            quorum_percent=self.plan.quorum_percent,
            started_at=self._now,
            deadline_at=self._now + self.plan.round_deadline,
        )
        if self.plan.evaluates(self.version):
            self.round.evaluation = Evaluation(self.version, dict(self._early))
        self.phase = Phase.TRAINING
        self._out.append(m.BeginRound(self.round.number))
        for learner in sorted(self.ready, key=natural_order):
            self._assign(learner)

    def _assign(self, learner: str) -> None:
        """Give a ready learner its part of the open round: what it already holds or works on, or a new task."""
        assert self.round is not None
        ready = self.ready[learner]
        self.ready[learner] = m.LearnerReady(learner)
        participant = self.round.participants.get(learner)
        offered = [*ready.held, *([ready.running] if ready.running else [])]
        usable = next((text for text in offered if self._usable(text, learner)), None)
        if usable:
            task = TaskId.parse(usable)
        elif participant:
            task = participant.task
        else:
            task = self._task(Kind.TRAIN, self.round.base_version, learner, self.round.attempt)
        self.round.participants[learner] = Participant(task)
        order = Order(task, self.round.number, self.round.evaluation is not None, self.round.deadline_at)
        if usable is None:
            self._out.append(m.Dispatch(order))
        elif usable != ready.running:
            self._out.append(m.Resend(order))
        for text in offered:
            if text != usable:
                self._out.append(m.Discard(learner, text, "its round is over"))

    def _usable(self, text: str, learner: str) -> bool:
        """Whether a task of before (perhaps of an earlier controller) still serves the open round."""
        try:
            task = TaskId.parse(text)
        except ValueError:
            return False
        return self.round is not None and (task.federation, task.kind, task.base_version, task.learner) == (
            self._federation,
            Kind.TRAIN,
            self.round.base_version,
            learner,
        )

    def _watch_round(self) -> None:
        assert self.round is not None
        if self.round.evaluation and not self.round.evaluation.settled and self.round.all_evaluated:
            self._settle(self.round.evaluation)
        if self.phase is not Phase.TRAINING:
            return
        late = self._now >= self.round.deadline_at
        if self.round.has_quorum and (self.round.all_reported or late):
            self._close_round()
        elif self._out_of_time:
            self._abandon_round(self._duration_message)
            self._evaluate_last("MaxDurationReached", self._duration_message)
        elif late or self.round.hopeless:
            self._ask_again()

    def _close_round(self) -> None:
        assert self.round is not None
        if self.round.evaluation and not self.round.evaluation.settled:
            self._settle(self.round.evaluation)
            if self.phase is not Phase.TRAINING:
                return
        late = self.round.having(Standing.PENDING)
        self._out.append(
            m.CommitRound(
                number=self.round.number,
                attempts=self.round.attempt,
                started_at=self.round.started_at,
                participants=tuple(sorted(self.round.participants, key=natural_order)),
                contributors=self.round.having(Standing.DONE),
                lost=self.round.having(Standing.PENDING, Standing.LOST, Standing.EXCLUDED),
            )
        )
        self.phase = Phase.COMMITTING
        for learner in late:
            self._discard(learner, self.round.participants[learner].task, "the round closed without it")

    def _ask_again(self) -> None:
        """There is no quorum, and the deadline has passed or nobody is left to wait for: give the round more time, ask
        those whose task failed again, and give newcomers a part in it."""
        assert self.round is not None
        newcomers = set(self.ready) - set(self.round.participants)
        if self.round.attempt >= self.plan.max_attempts or (self.round.hopeless and not newcomers):
            self._end(False, "QuorumNotReached", self._quorum_message(self.round))
            return
        self.round.attempt += 1
        self.round.deadline_at = self._now + self.plan.round_deadline
        idle = set(self.round.having(Standing.LOST)) & set(self.ready)
        for learner in sorted(newcomers | idle, key=natural_order):
            self._assign(learner)

    def _quorum_message(self, failed: OpenRound) -> str:
        done, missing = failed.having(Standing.DONE), set(failed.participants) - set(failed.having(Standing.DONE))
        return (
            f"round {failed.number}: {len(done)} of {len(failed.participants)} learners delivered in "
            f"{failed.attempt} attempts of {self.plan.round_deadline:g} s, {failed.quorum} are needed; "
            f"missing: {', '.join(sorted(missing, key=natural_order))}"
        )

    def _abandon_round(self, reason: str) -> None:
        if self.round is not None:
            for learner in self.round.having(Standing.PENDING):
                self._discard(learner, self.round.participants[learner].task, reason)
            self.round = None

    def _settle(self, evaluation: Evaluation) -> None:
        """The metrics of a version are as complete as they will be; end the federation if they meet the target."""
        assert self.round is not None
        self._record(evaluation)
        if len(evaluation.reports) >= self.round.quorum and (reached := self._target_reached(evaluation)):
            self._end(True, "TargetMetricReached", reached, evaluation.version)

    def _record(self, evaluation: Evaluation) -> None:
        evaluation.settled = True
        if evaluation.reports:
            self._evaluated = True
        if means := evaluation.means():
            self._out.append(m.RecordMetrics(evaluation.version, means))

    def _target_reached(self, evaluation: Evaluation) -> str:
        """A sentence that says so, or nothing."""
        target = self.plan.target
        mean = evaluation.means().get(target.metric) if target else None
        if target is None or mean is None or not target.met_by(mean.value):
            return ""
        return f"version {evaluation.version} reached {target}: {mean.value:.6g}"

    # ---- the last version

    def _evaluate_last(self, reason: str, message: str) -> None:
        assert self.version is not None
        if self._evaluated:
            self._end(True, reason, message, self.version)
            return
        self.phase = Phase.EVALUATING
        self.final = FinalEvaluation(
            evaluation=Evaluation(self.version, dict(self._early)),
            complete_at=self._now + (self.plan.gather_grace if self._returning else 0.0),
            deadline_at=self._now + self.plan.round_deadline,
            reason=reason,
            message=message,
            asked={},
        )
        for learner in sorted(self.ready, key=natural_order):
            self._ask_to_evaluate(learner)

    def _ask_to_evaluate(self, learner: str) -> None:
        assert self.final is not None
        version = self.final.evaluation.version
        ready, self.ready[learner] = self.ready[learner], m.LearnerReady(learner)
        for text in (*ready.held, *([ready.running] if ready.running else [])):
            if text != str(self.final.asked.get(learner)):
                self._out.append(m.Discard(learner, text, "its round is over"))
        task = self.final.asked.setdefault(learner, self._task(Kind.EVALUATE, version, learner, 1))
        self._out.append(m.Dispatch(Order(task, version, True, self.final.deadline_at)))

    def _watch_final_evaluation(self) -> None:
        assert self.final is not None
        evaluation = self.final.evaluation
        outstanding = {name for name in self.final.asked if name in self.ready} - set(evaluation.reports)
        expecting = self._now < self.final.complete_at and len(self.ready) < self.plan.expected_learners
        if self._now < self.final.deadline_at and (outstanding or expecting or not evaluation.reports):
            return
        self._record(evaluation)
        reached = self._target_reached(evaluation)
        message = self.final.message
        if not evaluation.reports:
            message += "; no learner evaluated the last version in time"
        if reached:
            self._end(True, "TargetMetricReached", reached, evaluation.version)
        else:
            self._end(True, self.final.reason, message, evaluation.version)

    # ---- helpers

    def _end(self, complete: bool, reason: str, message: str, published: int | None = None) -> None:
        self._abandon_round("the federation has ended")
        self.phase = Phase.ENDED
        self._out.append(m.End(complete, reason, message, self.version if published is None else published))

    @property
    def _out_of_time(self) -> bool:
        limit = self.plan.max_duration
        return limit is not None and self.started_at is not None and self._now - self.started_at >= limit

    @property
    def _duration_message(self) -> str:
        return f"{self.plan.max_duration:g} seconds have passed"

    def _why_wait(self) -> str:
        if self.phase in (Phase.GATHERING, Phase.BETWEEN):
            return f"waiting for learners: {len(self.ready)} ready, {self.plan.min_learners} needed"
        return "waiting for the next round"

    def _discard(self, learner: str, task: TaskId, reason: str) -> None:
        if learner in self.ready:
            self._out.append(m.Discard(learner, str(task), reason))

    def _task(self, kind: Kind, version: int, learner: str, attempt: int) -> TaskId:
        return TaskId(self._federation, self._incarnation, kind, version, learner, attempt)


def _first_phase(resumed: Resumed) -> Phase:
    if resumed.ended:
        return Phase.ENDED
    return Phase.GATHERING if resumed.version is None else Phase.BETWEEN


def natural_order(learner: str) -> tuple[str, int]:
    """Sorts `silo-a-2` before `silo-a-10`."""
    group, _, ordinal = learner.rpartition("-")
    return (group, int(ordinal)) if ordinal.isdigit() else (learner, 0)

"""The version that a federation ends with is evaluated by a task of its own, as no round follows in which learners
would download it; and evaluators get some time to report it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from metisfl_controller.rounds.evaluation import Evaluation, Report
from metisfl_controller.rounds.evaluators import Evaluators
from metisfl_controller.rounds.learners import Learners
from metisfl_controller.rounds.names import by_number
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.tasks import Kind, Order, TaskId
from metisfl_controller.rounds.termination.conclusion import Conclusion


@dataclass
class LearnersPart:
    """Until `complete_at`, learners that are not there are waited for; until `deadline_at`, those that were asked."""

    learners: Learners
    evaluation: Evaluation
    expected: int
    complete_at: float
    deadline_at: float
    _asked: dict[str, TaskId] = field(default_factory=dict)
    _outstanding: set[str] = field(default_factory=set)
    """Who was asked and has not reported."""

    def ask(self, learner: str) -> None:
        """Also again, when it has reconnected."""
        version, asked = self.evaluation.version, self._asked.get(learner)
        self.learners.discard_but(str(asked) if asked else None, self.learners.unpack(learner))
        task = self._asked[learner] = asked or self.learners.task(Kind.EVALUATE, version, learner, 1)
        if learner not in self.evaluation.reports:
            self._outstanding.add(learner)
        self.learners.dispatch(Order(task, version, True, self.deadline_at))

    def reported(self, learner: str, report: Report) -> None:
        self.evaluation.reports[learner] = report
        self._outstanding.discard(learner)

    def failed(self, task: TaskId) -> None:
        """Its learner is not waited for; an older task's failure excuses nobody."""
        if self._asked.get(task.learner) == task:
            del self._asked[task.learner]
            self._outstanding.discard(task.learner)

    def done(self, now: float) -> bool:
        """Whether there is nobody left to wait for, or no time. Without any report there is always somebody."""
        ready = self.learners.ready
        outstanding = any(learner in ready for learner in self._outstanding)
        expecting = now < self.complete_at and len(ready) < self.expected
        return now >= self.deadline_at or not (outstanding or expecting or not self.evaluation.reports)


@dataclass
class EvaluatorsPart:
    """Until `complete_at`, evaluators that are not there are waited for; until `deadline_at`, those that are."""

    evaluators: Evaluators
    version: int
    expected: Collection[str]
    complete_at: float
    deadline_at: float

    def done(self, now: float) -> bool:
        absent = now < self.complete_at and self.missing
        return now >= self.deadline_at or not (absent or self.evaluators.owing(self.version))

    @property
    def missing(self) -> list[str]:
        """Who has not reported."""
        return self.evaluators.without(self.version, self.expected)


@dataclass
class FinalEvaluation:
    """`conclusion` says why there are no more rounds. Without a `learners_part` their metrics are known."""

    conclusion: Conclusion
    learners_part: LearnersPart | None
    evaluators_part: EvaluatorsPart

    @classmethod
    def begin(
        cls,
        conclusion: Conclusion,
        plan: Plan,
        evaluation: Evaluation | None,
        learners: Learners,
        evaluators: Evaluators,
        version: int,
        now: float,
        returning: bool,
    ) -> FinalEvaluation:
        """Ask for what is missing of this version: an `evaluation` is for learners to complete. When they are
        `returning` after a restart, those who are not there yet have some time to appear."""
        grace = now + plan.gather_grace
        evaluators_part = EvaluatorsPart(evaluators, version, plan.evaluators, grace, now + plan.evaluator_wait)
        if evaluation is None:
            return cls(conclusion, None, evaluators_part)
        complete_at, deadline_at = grace if returning else now, now + plan.round_deadline
        learners_part = LearnersPart(learners, evaluation, plan.expected_learners, complete_at, deadline_at)
        for learner in by_number(learners.ready):
            learners_part.ask(learner)
        return cls(conclusion, learners_part, evaluators_part)

    def appeared(self, learner: str) -> bool:
        """A learner is ready; says whether it has been given something to do."""
        if self.learners_part is not None:
            self.learners_part.ask(learner)
        return self.learners_part is not None

    def reported(self, learner: str, version: int, report: Report) -> None:
        if self.learners_part is not None and self.learners_part.evaluation.awaits(version):
            self.learners_part.reported(learner, report)

    def failed(self, task: TaskId) -> None:
        if self.learners_part is not None:
            self.learners_part.failed(task)

    def done(self, now: float) -> bool:
        learners_done = self.learners_part is None or self.learners_part.done(now)
        return learners_done and self.evaluators_part.done(now)

    def told(self, remark: str) -> Conclusion:
        """The conclusion, with whose metrics of the last version are missing, and a remark if there is one."""
        message = self.conclusion.message
        if self.learners_part is not None and not self.learners_part.evaluation.reports:
            message += "; no learner evaluated the last version in time"
        if missing := self.evaluators_part.missing:
            noun = "evaluator" if len(missing) == 1 else "evaluators"
            message += f"; {noun} {', '.join(missing)} did not evaluate the last version in time"
        if remark:
            message += f"; {remark}"
        return replace(self.conclusion, message=message)

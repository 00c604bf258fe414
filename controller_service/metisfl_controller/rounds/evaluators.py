"""Learners of groups with role Evaluator: each gets every committed version to evaluate, and nothing else to do.

Nobody waits for them. One that is still at work when a newer version is committed gets the newest when it is free, and
what it has skipped is said. A version's metrics are the example-weighted means over the evaluators that have reported
it so far, and conclusive when nobody is at work on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from dataclasses import dataclass

from metisfl.spec.termination import MetricSource
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Report, weighted_means
from metisfl_controller.rounds.learners import Learners
from metisfl_controller.rounds.names import by_number
from metisfl_controller.rounds.tasks import Kind, Order, TaskId
from metisfl_controller.rounds.termination.termination import Observed


@dataclass
class Evaluator:
    """One of them, from its first appearance on. Counts are of this controller's time."""

    ready: bool = True
    task: TaskId | None = None
    """What it is at work on."""

    asked: int | None = None
    """The newest version it was asked for since it appeared."""

    reported: int | None = None
    """The newest version it has reported."""

    evaluated: int = 0
    missed: int = 0
    """Versions before `reported` that it did not evaluate."""


class Evaluators:
    """`newest`: the version that an earlier controller has left, if any."""

    def __init__(self, learners: Learners, say: Callable[[m.Command], None], newest: int | None) -> None:
        self.present: dict[str, Evaluator] = {}
        self._learners = learners
        self._say = say
        self._first = self._newest = newest
        self._reports: dict[int, dict[str, Report]] = {}
        """Of the newest version and of those that somebody is at work on."""
        self._conclusive: list[Observed] = []

    def take(self, event: m.Event) -> None:
        """Events that are not about evaluators change nothing."""
        match event:
            case m.EvaluatorReady(name, running):
                self._appeared(name, running)
            case m.EvaluatorLost(name) if name in self.present:
                self.present[name].ready = False
                self._released(name)
            case m.EvaluatorReported(name, version, report) if name in self.present:
                self._reported(name, version, report)
            case m.TaskFailed(task) if task.learner in self.present and self.present[task.learner].task == task:
                self._released(task.learner)
                self._offer(task.learner)
            case m.Committed(version):
                self._committed(version)
            case _:
                pass

    def conclusive(self) -> list[Observed]:
        """Versions whose metrics have become conclusive since this was last asked."""
        found, self._conclusive = self._conclusive, []
        return found

    @property
    def versions(self) -> Set[int]:
        """Those that somebody is at work on."""
        return {each.task.base_version for each in self.present.values() if each.task is not None}

    def owing(self, version: int) -> list[str]:
        """Who is there and may still report this version, the newest one."""
        return [name for name, each in self.present.items() if each.ready and self._may_report(each, version)]

    def without(self, version: int, expected: Collection[str]) -> list[str]:
        """Who has not reported this version, of those that are expected or have been here, in natural order."""
        names = {*expected, *(name for name, each in self.present.items() if each.ready)}
        reported = {name for name, each in self.present.items() if each.reported == version}
        return by_number(names - reported)

    # ---- events

    def _appeared(self, name: str, running: str) -> None:
        before = self.present.get(name, Evaluator())
        self.present[name] = before
        self._released(name)
        before.ready, before.asked = True, None
        task = self._still_wanted(name, running)
        if task is not None:
            before.task, before.asked = task, task.base_version
        elif not self._offer(name):
            self._say(m.Wait(name, "waiting for a version to evaluate"))

    def _still_wanted(self, name: str, running: str) -> TaskId | None:
        """The task it is at work on, if that is an evaluation of this federation; it may be an older controller's."""
        try:
            task = TaskId.parse(running)
        except ValueError:
            return None
        known = self._newest is not None and task.base_version <= self._newest
        mine = self._learners.task(Kind.EVALUATE, task.base_version, name, 1)
        same = (task.federation, task.kind, task.learner) == (mine.federation, mine.kind, mine.learner)
        return task if known and same else None

    def _committed(self, version: int) -> None:
        self._first = version if self._first is None else self._first
        self._newest = version
        self._forget_reports()
        for name in by_number(self.present):
            self._offer(name)

    def _reported(self, name: str, version: int, report: Report) -> None:
        """Evaluations are sent again after a broken connection: what is neither asked for nor new is left alone."""
        each = self.present[name]
        if version != self._newest and (each.task is None or each.task.base_version != version):
            return
        if each.reported is None or version > each.reported:
            self._count(name, each, version)
        self._reports.setdefault(version, {})[name] = report
        if each.task is not None and each.task.base_version == version:
            each.task = None
        self._tell(version)
        self._offer(name)

    def _count(self, name: str, each: Evaluator, version: int) -> None:
        assert self._first is not None
        begin = self._first if each.reported is None else each.reported + 1
        if begin < version:
            self._say(m.VersionsMissed(name, begin, version - 1))
        each.missed += version - begin
        each.evaluated += 1
        each.reported = version

    def _released(self, name: str) -> None:
        """It is not at work any more, without a result."""
        each = self.present[name]
        if each.task is not None:
            version, each.task = each.task.base_version, None
            if self._reports.get(version):
                self._tell(version)

    # ---- work and metrics

    def _offer(self, name: str) -> bool:
        """Give an evaluator that is free the newest version, once; says whether it was given something."""
        each, version = self.present[name], self._newest
        if version is None or not each.ready or each.task is not None or not self._may_report(each, version):
            return False
        each.task = self._learners.task(Kind.EVALUATE, version, name, 1)
        each.asked = version
        self._learners.dispatch(Order(each.task, version, evaluate=True))
        return True

    def _may_report(self, each: Evaluator, version: int) -> bool:
        return each.task is not None or (each.reported != version and each.asked != version)

    def _tell(self, version: int) -> None:
        reports = self._reports[version]
        conclusive = all(each.task is None or each.task.base_version != version for each in self.present.values())
        means = weighted_means(reports.values())
        if means:
            self._say(m.RecordMetrics(version, means, MetricSource.EVALUATORS, conclusive))
        if conclusive:
            values = {name: mean.value for name, mean in means.items()}
            self._conclusive.append(Observed(MetricSource.EVALUATORS, version, values))
        self._forget_reports()

    def _forget_reports(self) -> None:
        used = {each.task.base_version for each in self.present.values() if each.task is not None}
        for version in self._reports.keys() - used - {self._newest}:
            del self._reports[version]

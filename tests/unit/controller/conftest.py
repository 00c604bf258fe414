"""Kernels that are compiled once, and a script that plays a federation to the state machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from metisfl_controller import kernel_cache
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Report
from metisfl_controller.rounds.machine import Machine
from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.tasks import Kind, TaskId

DEADLINE = 100.0
GRACE = 15.0

# Before anything imports Numba, which reads the environment once; the controller keeps its kernels in the same place.
kernel_cache.prepare(os.environ)


@pytest.fixture(scope="session")
def kernels() -> None:
    """Kernels that are compiled, for two threads."""
    from metisfl_controller.aggregation.kernels import runtime

    runtime.configure(2)


class Script:
    """A machine on fake time, with everything it says as short lines in `said`.

    Lines: "a-0 initialises", "a-0 trains 3" (from version 3), "a-0 trains and evaluates 3", "a-0 trains 3 for 20
    batches", "a-0 evaluates 3", "a-0 resends 3", "a-0 discards 3", "a-0 waits", "adopt a-0", "begin 4", "fold a-0 x10",
    "fold a-0 x10 · 0.6" (scaled),
    "commit 4 of a-0 a-1, lost b-0", "metrics 3 accuracy=0.5/20", "evaluators say 3 accuracy=0.5/20", "e-0 missed 1-3",
    "new plan" and "Complete: Reason at 4".
    """

    def __init__(self, learners: int, resumed: Resumed | None = None, incarnation: int = 1, **changes: object) -> None:
        values: dict[str, object] = {
            "expected_learners": learners,
            "min_learners": learners,
            "quorum_percent": 100,
            "round_deadline": DEADLINE,
            "max_rounds": 2,
            "gather_grace": GRACE,
            **changes,
        }
        self.now = 1000.0
        self.machine = Machine(Plan(**values), "uid", incarnation, resumed or Resumed(), self.now)  # type: ignore[arg-type]
        self.tasks: dict[str, TaskId] = {}
        """The last task each learner was given."""
        self.end: m.End | None = None
        self.orders: list[m.Dispatch | m.Resend] = []
        self.commits: list[m.CommitRound] = []

    def do(self, event: m.Event) -> list[str]:
        return [self._line(command) for command in self.machine.handle(event, self.now)]

    # What happens to a federation

    def ready(self, *learners: str, held: tuple[str, ...] = (), running: str = "") -> list[str]:
        return [line for learner in learners for line in self.do(m.LearnerReady(learner, held, running))]

    def lost(self, *learners: str) -> list[str]:
        return [line for learner in learners for line in self.do(m.LearnerLost(learner))]

    def uploads(self, *learners: str, examples: int = 10, batches: int = 1, seconds: float = 1.0) -> list[str]:
        """Verified results of these learners' last tasks."""
        work = m.Work(examples, batches, seconds)
        return [line for learner in learners for line in self.do(self._verified(self.tasks[learner], work))]

    def evaluates(self, version: int, **values: float) -> list[str]:
        """`a_0=0.5` is a learner's accuracy, over 10 examples."""
        lines = []
        for learner, value in values.items():
            report = Report(10, {"accuracy": value})
            lines += self.do(m.Evaluated(learner.replace("_", "-"), version, report))
        return lines

    def evaluator_ready(self, *names: str, running: str = "") -> list[str]:
        return [line for name in names for line in self.do(m.EvaluatorReady(name, running))]

    def evaluator_lost(self, name: str) -> list[str]:
        return self.do(m.EvaluatorLost(name))

    def evaluator_reports(self, version: int, examples: int = 10, **values: float) -> list[str]:
        """`e_0=0.5` is an evaluator's accuracy."""
        lines = []
        for name, value in values.items():
            report = Report(examples, {"accuracy": value})
            lines += self.do(m.EvaluatorReported(name.replace("_", "-"), version, report))
        return lines

    def fails(self, learner: str) -> list[str]:
        return self.do(m.TaskFailed(self.tasks[learner]))

    def is_rejected(self, learner: str) -> list[str]:
        return self.do(m.UpdateRejected(self.tasks[learner]))

    def changes(self, **changes: object) -> list[str]:
        """The spec is edited."""
        return self.do(m.PlanChanged(replace(self.machine.plan, **changes)))  # type: ignore[arg-type]

    def committed(self, version: int) -> list[str]:
        return self.do(m.Committed(version))

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.do(m.Tick())

    def started(self, *learners: str) -> list[str]:
        """From nothing to the first round; what the last step said."""
        self.ready(*learners)
        self.uploads(learners[0])
        return self.committed(0)

    def _verified(self, task: TaskId, work: m.Work) -> m.Event:
        return m.InitialModelVerified(task) if task.kind is Kind.INITIALISE else m.UpdateVerified(task, work)

    def _line(self, command: m.Command) -> str:
        match command:
            case m.Dispatch(order):
                self.tasks[order.task.learner] = order.task
                self.orders.append(command)
                what = {
                    Kind.INITIALISE: "initialises",
                    Kind.TRAIN: f"trains{' and evaluates' if order.evaluate else ''} {order.task.base_version}"
                    + (f" for {order.steps} batches" if order.steps else ""),
                    Kind.EVALUATE: f"evaluates {order.task.base_version}",
                }
                return f"{order.task.learner} {what[order.task.kind]}"
            case m.Resend(order):
                self.tasks[order.task.learner] = order.task
                self.orders.append(command)
                return f"{order.task.learner} resends {order.task.base_version}"
            case m.Discard(learner, task):
                try:
                    return f"{learner} discards {TaskId.parse(task).base_version}"
                except ValueError:
                    return f"{learner} discards {task}"
            case m.Wait(learner):
                return f"{learner} waits"
            case m.PlanAdopted():
                return "new plan"
            case m.AdoptInitialModel(task):
                return f"adopt {task.learner}"
            case m.BeginRound(number):
                return f"begin {number}"
            case m.Fold(task, weight, _, scale):
                return f"fold {task.learner} x{weight:g}" + (f" · {scale:g}" if scale != 1 else "")
            case m.Drop(task):
                return f"drop {task.learner}"
            case m.CommitRound():
                self.commits.append(command)
                lost = f", lost {' '.join(command.lost)}" if command.lost else ""
                return f"commit {command.number} of {' '.join(command.contributors)}{lost}"
            case m.RecordMetrics(version, means):
                shown = " ".join(f"{name}={mean.value:g}/{mean.examples}" for name, mean in means.items())
                return f"{'metrics' if command.source == 'Learners' else 'evaluators say'} {version} {shown}"
            case m.Remark(text):
                return f"remark: {text}"
            case m.VersionsMissed(evaluator, first, last):
                return f"{evaluator} missed {first}-{last}"
            case m.End():
                self.end = command
                return f"{'Complete' if command.complete else 'Failed'}: {command.reason} at {command.published}"


@pytest.fixture
def script() -> Callable[..., Script]:
    return Script

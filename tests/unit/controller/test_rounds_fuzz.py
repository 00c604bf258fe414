"""Random misfortune against the state machine: what must hold whatever happens, and that patience always ends it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from metisfl.spec.termination import MetricSource
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Report
from metisfl_controller.rounds.machine import Machine
from metisfl_controller.rounds.phases import Phase, Resumed
from metisfl_controller.rounds.plan import Plan, quorum_of
from metisfl_controller.rounds.protocols.parameters import Buffering, Pacing
from metisfl_controller.rounds.protocols.staleness import polynomial
from metisfl_controller.rounds.selection.all import All
from metisfl_controller.rounds.selection.power_of_choice import PowerOfChoice
from metisfl_controller.rounds.selection.random import Random
from metisfl_controller.rounds.selection.round_robin import RoundRobin
from metisfl_controller.rounds.tasks import Kind, Order, TaskId
from metisfl_controller.rounds.termination.target import Target

LEARNERS = ("a-0", "a-1", "a-2", "b-0")
EVALUATORS = ("e-0", "e-1")


@dataclass
class World:
    """Learners and a store around the machine; checks every command against what a federation must never do."""

    plan: Plan
    incarnation: int = 0
    now: float = 0.0
    committed: int | None = None
    started_at: float | None = None
    evaluated: set[int] = field(default_factory=set)
    ended: m.End | None = None
    connected: set[str] = field(default_factory=set)
    work: dict[str, Order] = field(default_factory=dict)
    """What each learner is doing."""
    finished: dict[str, set[TaskId]] = field(default_factory=dict)
    """Results that each learner holds."""
    folded: list[TaskId] = field(default_factory=list)
    """Contributions to the open round or buffer."""
    counted: set[TaskId] = field(default_factory=set)
    """Contributions to committed versions."""
    committing: int | None = None

    def __post_init__(self) -> None:
        self.start_controller()

    def start_controller(self) -> None:
        self.incarnation += 1
        self.connected.clear()
        self.folded, self.committing = [], None
        if self.committed is not None:
            self.evaluated.discard(self.committed)  # what it finds is evaluated again
        resumed = Resumed(self.committed, self.started_at, self.ended is not None, counted=frozenset(self.counted))
        self.machine = Machine(self.plan, "uid", self.incarnation, resumed, self.now)

    def handle(self, event: m.Event) -> None:
        for command in self.machine.handle(event, self.now):
            self.obey(command)

    def obey(self, command: m.Command) -> None:
        assert self.ended is None, f"{command} after the end"
        match command:
            case m.Dispatch(order) | m.Resend(order):
                learner = order.task.learner
                if learner in EVALUATORS:
                    assert self.machine.evaluators.present[learner].ready
                    assert (order.task.kind, order.task.base_version) == (Kind.EVALUATE, self.committed)
                    self.work[learner] = order
                    return
                assert learner in self.machine.ready
                assert order.task.kind is Kind.INITIALISE or self.may_be_asked(command)
                assert order.deadline is not None or self.plan.buffering is not None
                assert order.deadline is None or order.deadline > self.now
                if isinstance(command, m.Resend):
                    assert order.task in self.finished[learner]
                assert order.task not in self.counted, "asked again for what is in a version"
                if self.plan.buffering is None:
                    assert learner not in self.contributors, "asked again for what was delivered"
                if learner in self.connected:
                    self.work[learner] = order
            case m.Discard(learner, text):
                if learner in self.work and str(self.work[learner].task) == text:
                    del self.work[learner]
                self.finished.get(learner, set()).discard(TaskId.parse(text))
            case m.AdoptInitialModel():
                assert self.committed is None
                assert self.committing is None
                self.committing = 0
            case m.BeginRound(number):
                assert self.committed is not None
                assert number == self.committed + 1
                assert self.committing is None
                assert number <= self.plan.max_rounds
                self.started_at = self.now if self.started_at is None else self.started_at
                self.folded = []
            case m.Fold(task, weight, _, scale):
                assert weight > 0
                assert 0 < scale <= 1
                assert task not in self.counted, "counted twice"
                assert task not in self.folded, "folded twice"
                if self.plan.buffering is None:
                    assert scale == 1
                    assert task.learner not in self.contributors, "two contributions of one learner"
                    assert self.is_recent(task)
                self.folded.append(task)
            case m.CommitRound():
                assert self.committed is not None
                assert command.number == self.committed + 1
                assert set(command.contributors) == self.contributors
                assert set(command.tasks) == set(self.folded)
                assert set(command.contributors) | set(command.lost) == set(command.participants)
                assert not set(command.contributors) & set(command.lost)
                if self.plan.buffering is not None:
                    assert len(self.folded) == self.plan.buffering.size
                else:
                    # Who is shut out takes the place of one who was asked beyond the needed.
                    spared = max(self.plan.over_select, len(self.plan.revoked & set(command.lost)))
                    needed = max(1, len(command.participants) - spared)
                    assert len(command.contributors) >= quorum_of(needed, self.plan.quorum_percent)
                self.committing = command.number
            case m.RecordMetrics(version, source=MetricSource.EVALUATORS):
                assert self.committed is not None
                assert version <= self.committed
            case m.RecordMetrics(version):
                assert self.committed is not None
                assert version == self.committed or (self.plan.buffering is not None and version < self.committed)
                assert version not in self.evaluated, "a controller settles the metrics of a version once"
                self.evaluated.add(version)
            case m.End():
                by_evaluators = self.plan.target is not None and self.plan.target.source is MetricSource.EVALUATORS
                assert command.published == self.committed or (
                    (by_evaluators or self.plan.buffering is not None) and command.reason == "TargetMetricReached"
                )
                assert command.complete or command.reason in (
                    "QuorumNotReached",
                    "InitialModelFailed",
                    "TooFewLearners",
                    "NoUpdates",
                )
                self.ended = command

    @property
    def contributors(self) -> set[str]:
        return {task.learner for task in self.folded}

    def may_be_asked(self, command: m.Dispatch | m.Resend) -> bool:
        """Training begins with the newest version; what was begun before may go on, and be evaluated, by protocol."""
        task = command.order.task
        if self.plan.buffering is None:
            return self.is_recent(task) if isinstance(command, m.Resend) else task.base_version == self.committed
        assert self.committed is not None
        if isinstance(command, m.Dispatch) and task.kind is Kind.TRAIN:
            return task.base_version == self.committed
        return self.committed - self.plan.buffering.max_staleness <= task.base_version <= self.committed or (
            task.kind is Kind.EVALUATE and task.base_version in self.machine.versions
        )

    def is_recent(self, task: TaskId) -> bool:
        """Whether it may count in the open round."""
        assert self.committed is not None
        return task.base_version == self.committed or (
            self.plan.late_updates and task.base_version == self.committed - 1
        )

    # What learners do

    def appear(self, learner: str, restarted: bool) -> None:
        if restarted:
            self.work.pop(learner, None)
            self.finished[learner] = set()
        held = self.finished.setdefault(learner, set())
        running = self.work.get(learner)
        self.connected.add(learner)
        if learner in EVALUATORS:
            self.handle(m.EvaluatorReady(learner, str(running.task) if running else ""))
            return
        running_id = str(running.task) if running and running.task not in held else ""
        self.handle(m.LearnerReady(learner, tuple(sorted(map(str, held))), running_id))

    def vanish(self, learner: str) -> None:
        self.connected.discard(learner)
        self.handle(m.EvaluatorLost(learner) if learner in EVALUATORS else m.LearnerLost(learner))

    def revoke(self, learners: frozenset[str]) -> None:
        """These are shut out from now on, and nobody else is."""
        self.plan = replace(self.plan, revoked=learners)
        self.handle(m.PlanChanged(self.plan))
        for learner in learners & self.connected:
            self.vanish(learner)

    def finish(self, learner: str) -> None:
        """The learner completes its task, and the upload is verified whether or not it is still wanted."""
        order = self.work.pop(learner)
        version = order.task.base_version
        if learner in EVALUATORS:
            self.handle(m.EvaluatorReported(learner, version, Report(10, {"accuracy": 0.1 * version})))
            return
        if order.evaluate:
            self.handle(m.Evaluated(learner, version, Report(10, {"accuracy": 0.1 * version})))
        if order.task.kind is Kind.INITIALISE:
            if self.machine.expects(order.task):
                self.handle(m.InitialModelVerified(order.task))
        elif order.task.kind is Kind.TRAIN:
            self.finished.setdefault(learner, set()).add(order.task)
            self.handle(m.UpdateVerified(order.task, m.Work(10, batches=order.steps or 3, seconds=0.5)))

    def commit(self) -> None:
        assert self.committing is not None
        assert self.committing == (0 if self.committed is None else self.committed + 1)
        self.counted |= set(self.folded)
        self.committed, self.committing, self.folded = self.committing, None, []
        self.handle(m.Committed(self.committed))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.handle(m.Tick())

    def settle_down(self, limit: int = 500) -> None:
        """From now on everybody is there and everything works."""
        for _ in range(limit):
            for learner in LEARNERS + EVALUATORS:
                if learner not in self.connected and self.ended is None:
                    self.appear(learner, restarted=False)
            for learner in list(self.work):
                if self.ended is None and learner in self.work:
                    self.finish(learner)
            if self.committing is not None:
                self.commit()
            if self.ended is not None:
                return
            self.wait(1.0)
        raise AssertionError(f"no end after {limit} s in phase {self.machine.phase}")


plans = st.builds(
    Plan,
    expected_learners=st.just(len(LEARNERS)),
    min_learners=st.integers(1, len(LEARNERS)),
    quorum_percent=st.sampled_from([1, 34, 50, 75, 100]),
    round_deadline=st.just(30.0),
    max_rounds=st.integers(1, 4),
    evaluate_every=st.integers(1, 3),
    over_select=st.integers(0, 2),
    late_updates=st.booleans(),
    pacing=st.sampled_from([None, Pacing(1.5, 2, batch_size=4)]),
    buffering=st.sampled_from([None, None, *(Buffering(size, 0.5, polynomial(0.5), 2) for size in (1, 2, 5))]),
    max_duration=st.sampled_from([None, 100.0]),
    target=st.sampled_from(
        [
            None,
            Target("accuracy", at_least=0.2),
            Target("accuracy", at_least=0.2, patience=2),
            Target("accuracy", at_least=0.2, source=MetricSource.EVALUATORS),
        ]
    ),
    selection=st.sampled_from([All(), RoundRobin(2), Random(Fraction(1, 2), 0), PowerOfChoice(3, 1, "accuracy", 0)]),
    evaluators=st.sampled_from([(), EVALUATORS]),
    too_few_learners=st.sampled_from([None, 200.0]),
)
learners = st.sampled_from(LEARNERS + EVALUATORS)


class Misfortune(RuleBasedStateMachine):
    world: World

    @initialize(plan=plans)
    def begin(self, plan: Plan) -> None:
        self.world = World(plan)

    @rule(learner=learners, restarted=st.booleans())
    def appears(self, learner: str, restarted: bool) -> None:
        if self.world.ended is None:
            self.world.appear(learner, restarted)

    @rule(learner=learners)
    def vanishes(self, learner: str) -> None:
        self.world.vanish(learner)

    @rule(revoked=st.frozensets(st.sampled_from(LEARNERS), max_size=2))
    def some_are_revoked_and_others_no_more(self, revoked: frozenset[str]) -> None:
        self.world.revoke(revoked)

    @rule(learner=learners)
    def is_disconnected_unnoticed(self, learner: str) -> None:
        self.world.connected.discard(learner)

    @rule(data=st.data())
    @precondition(lambda self: self.world.work)
    def finishes(self, data: st.DataObject) -> None:
        self.world.finish(data.draw(st.sampled_from(sorted(self.world.work))))

    @rule(data=st.data(), rejected=st.booleans())
    @precondition(lambda self: self.world.work)
    def fails(self, data: st.DataObject, rejected: bool) -> None:
        task = self.world.work.pop(data.draw(st.sampled_from(sorted(self.world.work)))).task
        self.world.handle(m.UpdateRejected(task) if rejected and task.kind is Kind.TRAIN else m.TaskFailed(task))

    @rule(learner=learners, version=st.integers(0, 4), attempt=st.integers(1, 3), incarnation=st.integers(1, 3))
    def an_old_upload_arrives(self, learner: str, version: int, attempt: int, incarnation: int) -> None:
        task = TaskId("uid", incarnation, Kind.TRAIN, version, learner, attempt)
        self.world.handle(m.UpdateVerified(task, m.Work(10)))

    @rule(learner=learners, version=st.integers(0, 4))
    def a_stray_evaluation_arrives(self, learner: str, version: int) -> None:
        self.world.handle(m.Evaluated(learner, version, Report(5, {"accuracy": 0.0})))

    @rule()
    @precondition(lambda self: self.world.committing is not None)
    def commits(self) -> None:
        self.world.commit()

    @rule(seconds=st.sampled_from([0.5, 14.0, 15.0, 30.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule()
    def the_controller_restarts(self) -> None:
        self.world.start_controller()

    @invariant()
    def what_is_expected_is_expected_of_one_task(self) -> None:
        if not hasattr(self, "world"):
            return
        machine = self.world.machine
        if machine.phase is Phase.TRAINING:
            expected = [p.task.learner for p in machine.participants.values() if machine.expects(p.task)]
            assert len(expected) == len(set(expected))
            assert not set(expected) & self.world.contributors

    @invariant()
    def versions_that_tasks_refer_to_are_served(self) -> None:
        if hasattr(self, "world") and self.world.ended is None:
            machine = self.world.machine
            for order in self.world.work.values():
                if machine.expects(order.task) and order.task.kind is Kind.TRAIN:
                    assert order.task.base_version in machine.versions

    def teardown(self) -> None:
        if hasattr(self, "world") and self.world.ended is None:
            self.world.settle_down()
            assert self.world.ended is not None


TestMisfortune = Misfortune.TestCase
TestMisfortune.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("seed", range(20))
def test_with_responsive_learners_all_rounds_are_done(seed: int) -> None:
    choice = random.Random(seed)
    plan = Plan(
        expected_learners=len(LEARNERS),
        min_learners=choice.randint(1, len(LEARNERS)),
        quorum_percent=choice.choice([1, 50, 100]),
        round_deadline=30.0,
        max_rounds=choice.randint(1, 6),
        evaluate_every=choice.randint(1, 4),
    )
    world = World(plan)
    world.settle_down()
    assert world.ended is not None
    assert (world.ended.complete, world.ended.reason) == (True, "MaxRoundsReached")
    assert world.committed == plan.max_rounds
    assert {v for v in range(plan.max_rounds + 1) if plan.evaluates(v)} | {plan.max_rounds} == world.evaluated

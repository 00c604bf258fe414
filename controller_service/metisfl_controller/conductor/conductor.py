"""Executes the state machine's commands and feeds it what happens; everything here runs on one event loop."""

from __future__ import annotations

from pathlib import Path

from metisfl.api import FederationState
from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.spec.aggregation import AggregationRule
from metisfl.spec.protocol import ProtocolType
from metisfl.wire.codecs import Encoding
from metisfl_controller.aggregation.choice import rule_of
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.memory import ModelMemory
from metisfl_controller.aggregation.rule import Rule
from metisfl_controller.clock import Clock
from metisfl_controller.conductor.attendance import Attendance
from metisfl_controller.conductor.background import Background
from metisfl_controller.conductor.display import show
from metisfl_controller.conductor.fold_order import FoldOrder, order_of
from metisfl_controller.conductor.lineage import LineageKeeper
from metisfl_controller.conductor.needs import needs_of
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.conductor.serving import Serving
from metisfl_controller.conductor.task_messages import stop_message, task_message
from metisfl_controller.conductor.verdicts import Verdicts
from metisfl_controller.conductor.versions import Versions
from metisfl_controller.configuration import Configuration
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.output.delivery import Delivery
from metisfl_controller.output.destination import ObjectStore
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Report
from metisfl_controller.rounds.machine import Machine
from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.tasks import Order, TaskId, incarnation
from metisfl_controller.server.uploads import Uploads
from metisfl_controller.state.lineage import Lineage
from metisfl_controller.state.records import Outcome
from metisfl_controller.state.registry import Learner, Registry
from metisfl_controller.state.store import Store
from metisfl_controller.transport import transport_of

TICK_SECONDS = 0.5
CLOSE_SECONDS = 20.0


class Conductor:
    """One federation at work. `run` drives it until cancelled; the servers call the other methods and the parts."""

    def __init__(
        self,
        *,
        configuration: Configuration,
        uid: str,
        registry: Registry,
        engine: Engine,
        store: Store,
        uploads: Uploads,
        memory: ModelMemory,
        metrics: ControllerMetrics,
        clock: Clock,
        log: ContextLogger,
    ) -> None:
        federation = configuration.federation
        self.federation = federation
        """The one in force: edits hold from the next round on."""
        self.configuration = configuration
        """The newest one read."""
        self.uid = uid
        self.registry = registry
        self.uploads = uploads
        self.metrics = metrics
        self.clock = clock
        self._engine = engine
        self._log = log
        self._background = Background()
        spec = federation.spec
        self.transport = transport_of(
            spec.transport,
            updates=spec.protocol.needs_updates,
            control=spec.aggregation.rule is AggregationRule.SCAFFOLD,
        )
        self.progress = Progress(store, memory, self.transport)
        self.attendance = Attendance(registry, self.progress, self._handle, clock, log, needs_of(federation.spec))
        self.verdicts = Verdicts(
            engine=engine,
            uploads=uploads,
            registry=registry,
            background=self._background,
            expects=lambda task: self.machine.expects(task),
            will_expect=lambda task: self.machine.will_expect(task),
            why_late=lambda task: self.machine.why_late(task),
            handle=self._handle,
            log=log,
        )
        serving = Serving(engine, self.progress)
        self.served = serving.served
        self.lineage = self._lineage(store.directory)
        self._versions = Versions(
            engine=engine,
            uploads=uploads,
            accepted=self.verdicts.accepted,
            progress=self.progress,
            serving=serving,
            metrics=metrics,
            clock=clock,
            log=log,
            rule_of=self._rule_of,
            order_of=self._order_of,
            lineage=self.lineage,
        )
        self.delivery = Delivery(lambda: self.configuration.federation, uid, self.progress, ObjectStore, metrics, log)
        self.delivering = False
        """The run has ended and is not Complete before its model has arrived in spec.output, or will not for now."""
        self.machine = self._machine(Resumed())

    def _machine(self, resumed: Resumed) -> Machine:
        number = incarnation(self.progress.incarnation, self.clock())
        return Machine(Plan.of(self.federation.spec), self.uid, number, resumed, self.clock())

    def _rule_of(self, encoding: Encoding) -> Rule:
        spec = self.federation.spec
        rule = rule_of(spec.aggregation, encoding, self.progress.allocate, self.progress.store.directory)
        # Versions of this protocol go a part of the way from the one before, which has to be there.
        rule.needs_base |= spec.protocol.type is ProtocolType.ASYNCHRONOUS
        return rule

    def _lineage(self, state: Path) -> LineageKeeper | None:
        keep = self.federation.spec.aggregation.keep_updates
        if not keep:
            return None
        return LineageKeeper(Lineage(state / "updates", keep, self.progress.allocate), self._log)

    def _order_of(self, rule: Rule) -> FoldOrder:
        deterministic = self.federation.spec.aggregation.deterministic
        return order_of(rule, lambda: self.machine.participants, deterministic=deterministic)

    # ---- life

    async def start(self) -> None:
        """Load what an earlier controller committed, and wait for the kernels. Raises StateError or RuntimeError."""
        snapshot = await self.progress.load()
        version = snapshot.latest.version if snapshot.latest else None
        self.machine = self._machine(
            Resumed(
                version=version,
                started_at=snapshot.started_at,
                ended=snapshot.outcome is not None,
                observed=self.progress.observed,
                learners=self.progress.learners,
                counted=await self._counted(version),
            )
        )
        await self._engine.ready()
        await self._versions.resume()
        self.delivery.start()

    async def _counted(self, version: int | None) -> frozenset[TaskId]:
        """Tasks whose results are in the versions up to this one, and which a learner may still hold."""
        protocol = self.federation.spec.protocol
        if protocol.type is not ProtocolType.ASYNCHRONOUS or version is None:
            return frozenset()
        since = version - protocol.asynchronous_or_default.max_staleness
        ids = await self.progress.in_store(lambda: self.progress.store.tasks_after(since))
        return frozenset(map(TaskId.parse, ids))

    async def run(self) -> None:
        """Let time pass until cancelled. Raises what went wrong in the background, such as a full disk."""
        while True:
            await self._background.watch(TICK_SECONDS)
            self.attendance.end_expired()
            self._handle(m.Tick())
            show(self.metrics, self.machine, self.attendance, ended=self.progress.outcome is not None)

    async def close(self) -> None:
        """Wait for commits under way, then let go of threads and files."""
        await self.delivery.close()
        self.verdicts.close()
        await self._background.finish(CLOSE_SECONDS)
        if self.lineage is not None:
            await self.lineage.close(CLOSE_SECONDS)
        self._engine.close()
        self.uploads.close()
        await self.progress.close()

    def amend(self, configuration: Configuration) -> None:
        """The spec has changed: who has a place holds at once, everything else from the next round on."""
        self.configuration = configuration
        spec = configuration.federation.spec
        self.registry.amend(spec, configuration.plan)
        self._handle(m.PlanChanged(Plan.of(spec)))
        self.attendance.end_displaced()
        self.delivery.poke()

    # ---- what learners report

    def evaluated(self, learner: Learner, evaluation: pb.Evaluation) -> None:
        report = Report(evaluation.examples, {metric.name: metric.value for metric in evaluation.metrics})
        if learner.evaluator:
            learner.message = ""
            self._handle(m.EvaluatorReported(learner.id, evaluation.model_version, report))
        else:
            self._handle(m.Evaluated(learner.id, evaluation.model_version, report))

    def failed(self, learner: Learner, failure: pb.TaskFailure) -> None:
        learner.message = failure.message
        self._log.error("task failed: %s", failure.message, extra={"learner": learner.id, "task": failure.task_id})
        try:
            task = TaskId.parse(failure.task_id)
        except ValueError:
            return
        if task.learner == learner.id:
            self._handle(m.TaskFailed(task))

    # ---- the machine

    def _handle(self, event: m.Event) -> None:
        before = self.machine.phase, self.machine.version
        for command in self.machine.handle(event, self.clock()):
            self._execute(command)
        # What waits for a version that was being written may fill the next one at once, in the same phase.
        if (self.machine.phase, self.machine.version) != before:
            self.verdicts.move_on()
            self.served.keep(self.machine.versions)

    def _execute(self, command: m.Command) -> None:
        match command:
            case m.Dispatch(order):
                self._send(order)
            case m.Resend(order):
                self._send(order, pb.TASK_KIND_RESEND)
            case m.Discard(learner, task, reason):
                self.attendance.send(learner, pb.Task(task_id=task, kind=pb.TASK_KIND_DISCARD, reason=reason))
            case m.Wait(learner, reason):
                self.attendance.send(learner, pb.Task(kind=pb.TASK_KIND_WAIT, reason=reason))
            case m.PlanAdopted():
                self.federation = self.configuration.federation
                self.progress.store.keep_versions = self.federation.spec.controller.keep_versions
                self._log.info("the changed spec is in force", extra={"configuration": self.configuration.digest})
                self.attendance.require(needs_of(self.federation.spec))
                self.attendance.renew_outdated()
            case m.AdoptInitialModel(task):
                self._background.start(self._adopt(task))
            case m.BeginRound(number):
                assert self.machine.started_at is not None
                self._background.start(self._versions.begin(number, self.machine.started_at))
            case m.Fold():
                self._background.start(self._versions.fold(command))
            case m.Drop(task, reason):
                self.verdicts.drop(task, reason)
            case m.CommitRound():
                self._background.start(self._commit(command))
            case m.RecordMetrics():
                self._background.start(self._record_metrics(command))
            case m.Remark(text):
                self._log.warning("%s", text)
            case m.VersionsMissed(evaluator, first, last):
                span = f"version {first}" if first == last else f"versions {first} to {last}"
                self._log.warning("evaluator was busy or away: it misses %s", span, extra={"evaluator": evaluator})
                self.metrics.evaluations_missed.inc(last - first + 1)
            case m.End():
                self._background.start(self._end(command))

    def _send(self, order: Order, kind: pb.TaskKind.ValueType | None = None) -> None:
        message = task_message(order, self.federation.spec.training, self.clock(), kind)
        message.uncommitted.extend(self.verdicts.uncommitted(order.task.learner))
        self.attendance.send(order.task.learner, message)

    async def _adopt(self, task: TaskId) -> None:
        result = await self._versions.adopt(task)
        if self.progress.layout is not None:
            self.attendance.refuse_others(self.progress.layout)
        self._handle(result)
        self.delivery.poke()

    async def _commit(self, command: m.CommitRound) -> None:
        self._handle(await self._versions.commit(command, keep=self.machine.versions))
        self.delivery.poke()

    async def _record_metrics(self, known: m.RecordMetrics) -> None:
        for name, mean in known.means.items():
            self.metrics.model_metric(name, mean.value, known.source)
        await self.progress.record_metrics(known)
        shown = {name: round(mean.value, 6) for name, mean in known.means.items()}
        self._log.info("evaluated", extra={"version": known.version, "by": known.source, **shown})

    async def _end(self, command: m.End) -> None:
        state = FederationState.COMPLETE if command.complete else FederationState.FAILED
        self._versions.abandon()
        published, message = await self.progress.publishable(command.published, command.message)
        outcome = Outcome(state, command.reason, message, self.clock(), published)
        self.delivering = True
        await self.progress.record_outcome(outcome)
        await self.delivery.finish()
        self.delivering = False
        self._log.info("%s: %s", state, message, extra={"reason": command.reason})
        self.attendance.send_all(stop_message(outcome))

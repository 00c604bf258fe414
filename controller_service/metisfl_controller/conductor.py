"""Connects the pure state machine to the world: executes its commands, feeds it what happens.

Everything here runs on one event loop. Kernels run in the engine's thread, the store in a thread of its own; both
take work in the order of the calls, so a round's folds always precede its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from metisfl.api import FederationState
from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.spec import Federation
from metisfl.wire.layout import Buffer, Layout
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.fedavg import FedAvg
from metisfl_controller.clock import Clock
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Mean, Report
from metisfl_controller.rounds.machine import Machine
from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.tasks import Kind, Order, TaskId
from metisfl_controller.server.downloads import GlobalModel
from metisfl_controller.server.uploads import Upload, Uploads
from metisfl_controller.state.registry import Learner, Registry
from metisfl_controller.state.store import (
    Contribution,
    Outcome,
    RoundRecord,
    Snapshot,
    Store,
    StoredVersion,
)

T = TypeVar("T")

TICK_SECONDS = 0.5


@dataclass(eq=False)
class TaskStream:
    """One learner's open Tasks call: what is put in `outbox` is sent; an exception in it ends the stream."""

    learner: Learner
    outbox: asyncio.Queue[pb.Task | Exception] = field(default_factory=asyncio.Queue)


class StreamRefusedError(Exception):
    """Ends a learner's task stream for good; the text goes to the learner."""


class LeaseEndedError(Exception):
    """Ends a learner's task stream; it may join again."""


class Conductor:
    """One federation at work. `run` drives it until cancelled; the servers call the other methods."""

    def __init__(
        self,
        *,
        federation: Federation,
        uid: str,
        registry: Registry,
        engine: Engine,
        store: Store,
        uploads: Uploads,
        metrics: ControllerMetrics,
        clock: Clock,
        log: ContextLogger,
    ) -> None:
        self.federation = federation
        self.uid = uid
        self.registry = registry
        self.uploads = uploads
        self.metrics = metrics
        self.clock = clock
        self.model: GlobalModel | None = None
        self.latest: StoredVersion | None = None
        self.outcome: Outcome | None = None
        self.version_metrics: dict[int, dict[str, Mean]] = {}
        self.contributions: dict[str, int] = {}
        self.incarnation = 0
        self.layout: Layout | None = None
        self._engine = engine
        self._store = store
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._log = log
        self._streams: dict[str, TaskStream] = {}
        self._accepted: dict[TaskId, Contribution] = {}
        self._rule: FedAvg | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bytes_at_begin = (0, 0)
        self.machine = Machine(Plan.of(federation.spec), uid, 0, Resumed(), clock())

    # ---- life

    async def start(self) -> None:
        """Load what an earlier controller committed, and wait for the kernels. Raises StateError or RuntimeError."""
        snapshot = await self.in_store(self._store.snapshot)
        self.incarnation, self.layout, self.latest = snapshot.incarnation, snapshot.layout, snapshot.latest
        self.outcome = snapshot.outcome
        self.version_metrics = await self.in_store(self._store.metrics)
        for record in await self.in_store(self._store.rounds):
            self._count(record)
        if snapshot.latest is not None and snapshot.layout is not None and self.outcome is None:
            await self._load(snapshot.latest, snapshot.layout)
        self.machine = self._machine(snapshot)
        await self._engine.ready()

    def _machine(self, snapshot: Snapshot) -> Machine:
        resumed = Resumed(
            version=snapshot.latest.version if snapshot.latest else None,
            started_at=snapshot.started_at,
            ended=snapshot.outcome is not None,
        )
        return Machine(Plan.of(self.federation.spec), self.uid, snapshot.incarnation, resumed, self.clock())

    async def _load(self, stored: StoredVersion, layout: Layout) -> None:
        model = await self.in_store(lambda: self._store.read(stored, layout))
        self.model = GlobalModel(stored.version, layout, model)
        self._log.info("resumed at model version %d", stored.version)

    async def run(self) -> None:
        """Let time pass until cancelled. Raises what went wrong in the background, such as a full disk."""
        while True:
            await asyncio.wait({self._failure}, timeout=TICK_SECONDS)
            if self._failure.done():
                self._failure.result()
            now = self.clock()
            for learner in self.registry.expired(now):
                self._lose(learner, f"silent for more than {self.registry.lease_seconds:g} s")
            self._handle(m.Tick())
            self._show()

    async def close(self) -> None:
        """Wait for commits under way, then let go of threads and files."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=20)
        self._engine.close()
        await self.in_store(self._store.close)
        self._store_thread.shutdown()

    async def in_store(self, call: Callable[[], T]) -> T:
        """Run a blocking call of the store in its thread, after those before it."""
        return await asyncio.get_running_loop().run_in_executor(self._store_thread, call)

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    @property
    def store(self) -> Store:
        return self._store

    # ---- learners come and go

    def join(self, request: pb.JoinRequest) -> Learner:
        """Raises JoinRefusedError."""
        learner = self.registry.join(request.group, request.ordinal, request.framework[:63], self.clock())
        previous = self._streams.pop(learner.id, None)
        if previous is not None:
            previous.outbox.put_nowait(StreamRefusedError(f"another process has joined as {learner.id}"))
        self._log.info("joined", extra={"learner": learner.id, "framework": request.framework})
        return learner

    def open_stream(self, learner: Learner, ready: pb.Ready, layout: Layout) -> TaskStream:
        """The learner can take tasks. Raises StreamRefusedError when its model does not fit the federation's."""
        if self.layout is not None and self.layout.digest != layout.digest:
            message = self._layout_message(self.layout, layout)
            self._lose(learner, message)
            raise StreamRefusedError(message)
        learner.layout = layout
        learner.train_examples, learner.test_examples = ready.train_examples, ready.test_examples
        learner.ready, learner.message = True, ""
        previous = self._streams.get(learner.id)
        if previous is not None:
            previous.outbox.put_nowait(LeaseEndedError("another task stream was opened with it"))
        stream = self._streams[learner.id] = TaskStream(learner)
        self._log.info(
            "ready",
            extra={"learner": learner.id, "train": ready.train_examples, "test": ready.test_examples},
        )
        if self.ended:
            stream.outbox.put_nowait(self._stop_task())
        else:
            self._handle(m.LearnerReady(learner.id, tuple(ready.held_tasks), ready.running_task))
        return stream

    def close_stream(self, stream: TaskStream) -> None:
        """The connection is gone; the learner has its lease's time to come back."""
        if self._streams.get(stream.learner.id) is stream:
            del self._streams[stream.learner.id]
            self._log.info("connection closed", extra={"learner": stream.learner.id})

    def connected(self, learner: Learner) -> bool:
        return learner.id in self._streams

    def leave(self, learner: Learner, error: str) -> None:
        """The learner goes on purpose, or because it cannot take part."""
        if error:
            self._log.error("learner failed: %s", error, extra={"learner": learner.id})
            self._lose(learner, error)
        else:
            self._log.info("left", extra={"learner": learner.id})
            self._end_lease(learner, "", "Left")

    def evaluated(self, learner: Learner, evaluation: pb.Evaluation) -> None:
        report = Report(evaluation.examples, {metric.name: metric.value for metric in evaluation.metrics})
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

    def _lose(self, learner: Learner, why: str) -> None:
        self._log.warning("lost: %s", why, extra={"learner": learner.id})
        self._end_lease(learner, why, "Lost")

    def _end_lease(self, learner: Learner, message: str, activity: str) -> None:
        self.registry.end(learner, message, activity)
        stream = self._streams.pop(learner.id, None)
        if stream is not None:
            stream.outbox.put_nowait(LeaseEndedError(message))
        self._handle(m.LearnerLost(learner.id))

    # ---- uploads

    def expects(self, task: TaskId) -> bool:
        return not self.ended and self.machine.expects(task)

    def will_expect(self, task: TaskId) -> bool:
        return not self.ended and self.machine.will_expect(task)

    def was_accepted(self, task: TaskId) -> bool:
        return task in self._accepted

    async def verified(self, upload: Upload) -> tuple[pb.Outcome.ValueType, str]:
        """Judge a whole upload and, if it counts, hand it to the round. The slot is freed when it has been used.

        An upload is judged once, to the end, and all who wait for it hear the same: its stream may break meanwhile and
        another ask again.
        """
        if upload.verdict is None:
            upload.verdict = self._in_background(self._judge(upload))
        return await asyncio.shield(upload.verdict)

    async def _judge(self, upload: Upload) -> tuple[pb.Outcome.ValueType, str]:
        tensor = await self._engine.not_finite(upload.layout, upload.slot.buffer)
        task = upload.task
        if not self.expects(task):
            self.uploads.drop(upload)
            return pb.OUTCOME_LATE, "the round has closed"
        if tensor is not None:
            message = f"tensor '{tensor}' holds NaN or infinity"
            self.rejected(task, message)
            self.uploads.drop(upload)
            return pb.OUTCOME_REJECTED, message
        self.registry.learners[task.learner].message = ""
        report = upload.report
        metrics = {metric.name: metric.value for metric in report.metrics}
        self._accepted[task] = Contribution(report.examples, report.batches, report.seconds, metrics)
        if task.kind is Kind.INITIALISE:
            self._handle(m.InitialModelVerified(task))
        else:
            self._handle(m.UpdateVerified(task, report.examples))
        return pb.OUTCOME_ACCEPTED, ""

    def rejected(self, task: TaskId, message: str) -> None:
        """A result must not be used; the round goes on without it."""
        learner = self.registry.learners[task.learner]
        learner.message = f"update refused: {message}"
        self._log.error("update refused: %s", message, extra={"learner": learner.id, "task": str(task)})
        self._handle(m.UpdateRejected(task) if task.kind is Kind.TRAIN else m.TaskFailed(task))

    # ---- the machine

    def _handle(self, event: m.Event) -> None:
        phase = self.machine.phase
        for command in self.machine.handle(event, self.clock()):
            self._execute(command)
        if self.machine.phase is not phase:
            for upload in self.uploads.stale(self._needed):
                # A stream that still fills it notices, answers LATE and frees the slot itself.
                if upload.stream is None:
                    self.uploads.drop(upload)

    def _needed(self, task: TaskId) -> bool:
        return self.machine.expects(task) or task in self._accepted

    def _execute(self, command: m.Command) -> None:
        match command:
            case m.Dispatch(order):
                self._send(order.task.learner, self._task_message(order))
            case m.Resend(order):
                self._send(order.task.learner, self._task_message(order, pb.TASK_KIND_RESEND))
            case m.Discard(learner, task, reason):
                self._send(learner, pb.Task(task_id=task, kind=pb.TASK_KIND_DISCARD, reason=reason))
            case m.Wait(learner, reason):
                self._send(learner, pb.Task(kind=pb.TASK_KIND_WAIT, reason=reason))
            case m.AdoptInitialModel(task):
                self._in_background(self._adopt(task))
            case m.BeginRound(number):
                self._begin_round(number)
            case m.Fold(task, weight):
                upload = self.uploads.of(task)
                self._in_background(self._fold(upload, self._engine.fold(upload.slot.buffer, weight)))
            case m.CommitRound():
                self._in_background(self._commit(command, self._engine.finish()))
            case m.RecordMetrics(version, means):
                self._in_background(self._record_metrics(version, dict(means)))
            case m.End():
                self._in_background(self._end(command))

    def _send(self, learner: str, task: pb.Task) -> None:
        stream = self._streams.get(learner)
        if stream is not None:
            stream.outbox.put_nowait(task)

    def _begin_round(self, number: int) -> None:
        assert self.layout is not None
        assert self.machine.started_at is not None
        started_at = self.machine.started_at
        if self._rule is None:
            self._rule = FedAvg(self.layout)
        self._accepted.clear()
        self._bytes_at_begin = (self.metrics.bytes_sent, self.metrics.bytes_received)
        self._log.info("round begins", extra={"round": number})
        self._in_background(self.in_store(lambda: self._store.record_start(started_at)))
        self._in_background(_settled(self._engine.begin(self._rule)))

    async def _fold(self, upload: Upload, folding: asyncio.Future[None]) -> None:
        await folding
        self.uploads.drop(upload)

    async def _adopt(self, task: TaskId) -> None:
        upload = self.uploads.of(task)
        layout, model = upload.layout, upload.slot.buffer.copy()
        self.uploads.drop(upload)
        stored = await self.in_store(lambda: self._store.commit_initial(layout, model))
        self.layout, self.latest = layout, stored
        self.model = GlobalModel(0, layout, model)
        self._log.info("initial model committed", extra={"learner": task.learner, "parameters": layout.parameters})
        for learner in self.registry.others(layout):
            assert learner.layout is not None
            self._refuse(learner, self._layout_message(layout, learner.layout))
        self._handle(m.Committed(0))

    async def _commit(self, command: m.CommitRound, finishing: asyncio.Future[Buffer]) -> None:
        assert self.layout is not None
        layout, closed_at = self.layout, self.clock()
        try:
            model = await finishing
        except ValueError as error:
            self._handle(m.AggregationFailed(f"round {command.number}: {error}"))
            return
        aggregated_at = self.clock()
        stored = await self.in_store(lambda: self._store.write_model(command.number, layout, model))
        ended_at = self.clock()
        sent, received = self._bytes_at_begin
        record = RoundRecord(
            number=command.number,
            version=command.number,
            started_at=command.started_at,
            ended_at=ended_at,
            attempts=command.attempts,
            train_seconds=closed_at - command.started_at,
            aggregate_seconds=aggregated_at - closed_at,
            commit_seconds=ended_at - aggregated_at,
            bytes_received=self.metrics.bytes_received - received,
            bytes_sent=self.metrics.bytes_sent - sent,
            contributed={task.learner: done for task, done in self._accepted.items()},
            lost=command.lost,
        )
        await self.in_store(lambda: self._store.commit_round(stored, record))
        self.latest, self.model = stored, GlobalModel(stored.version, layout, model)
        self._count(record)
        self.metrics.rounds_committed.inc()
        self.metrics.round_seconds.observe(ended_at - command.started_at)
        self.metrics.aggregation_seconds.observe(self._engine.seconds)
        self.metrics.commit_seconds.observe(record.commit_seconds)
        self._log.info(
            "round committed",
            extra={
                "round": record.number,
                "seconds": round(ended_at - record.started_at, 3),
                "contributors": len(record.contributed),
                "lost": len(record.lost),
            },
        )
        self._handle(m.Committed(command.number))

    async def _record_metrics(self, version: int, means: dict[str, Mean]) -> None:
        self.version_metrics[version] = means
        for name, mean in means.items():
            self.metrics.model_metric(name, mean.value)
        await self.in_store(lambda: self._store.record_metrics(version, means))
        shown = {name: round(mean.value, 6) for name, mean in means.items()}
        self._log.info("evaluated", extra={"version": version, **shown})

    async def _end(self, command: m.End) -> None:
        state = FederationState.COMPLETE if command.complete else FederationState.FAILED
        outcome = Outcome(state, command.reason, command.message, self.clock(), command.published)
        await self.in_store(lambda: self._store.record_outcome(outcome))
        self.outcome = outcome
        self._log.info("%s: %s", state, command.message, extra={"reason": command.reason})
        for learner in list(self._streams):
            self._send(learner, self._stop_task())

    def _stop_task(self) -> pb.Task:
        assert self.outcome is not None
        return pb.Task(kind=pb.TASK_KIND_STOP, reason=f"{self.outcome.state}: {self.outcome.message}")

    # ---- helpers

    def _task_message(self, order: Order, kind: pb.TaskKind.ValueType | None = None) -> pb.Task:
        kinds = {
            Kind.INITIALISE: pb.TASK_KIND_INITIALISE,
            Kind.TRAIN: pb.TASK_KIND_TRAIN,
            Kind.EVALUATE: pb.TASK_KIND_EVALUATE,
        }
        training = self.federation.spec.training
        return pb.Task(
            task_id=str(order.task),
            kind=kinds[order.task.kind] if kind is None else kind,
            round=order.round,
            model_version=order.task.base_version,
            evaluate=order.evaluate,
            training=pb.Training(
                epochs=training.epochs,
                batch_size=training.batch_size,
                learning_rate=float(training.learning_rate),
                seed=order.round,
            )
            if order.task.kind is Kind.TRAIN
            else None,
            deadline_seconds=0.0 if order.deadline is None else max(0.001, order.deadline - self.clock()),
        )

    def _refuse(self, learner: Learner, message: str) -> None:
        stream = self._streams.pop(learner.id, None)
        if stream is not None:
            stream.outbox.put_nowait(StreamRefusedError(message))
        self._lose(learner, message)

    def _layout_message(self, expected: Layout, found: Layout) -> str:
        return "this learner's model has another layout than the federation's: " + "; ".join(expected.difference(found))

    def _count(self, record: RoundRecord) -> None:
        for learner in record.contributed:
            self.contributions[learner] = self.contributions.get(learner, 0) + 1

    def _show(self) -> None:
        machine, registry = self.machine, self.registry
        self.metrics.round.set(machine.round.number if machine.round else machine.version or 0)
        self.metrics.model_version.set(machine.version or 0)
        self.metrics.learners("desired", sum(registry.replicas.values()))
        self.metrics.learners("connected", len(self._streams))
        self.metrics.learners("ready", sum(learner.ready for learner in registry.learners.values()))
        self.metrics.learners("participating", len(machine.round.participants) if machine.round else 0)

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._background_done)
        return task

    def _background_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._failure.done():
            self._failure.set_exception(task.exception() or RuntimeError())


async def _settled(future: asyncio.Future[None]) -> None:
    await future

"""Makes model versions of verified uploads: the state machine's begin, fold and commit.

Each is run as a task. Tasks start in the order in which they were made and the engine takes work in the order of the
calls, so a round's folds always precede its commit.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from metisfl.logs import ContextLogger
from metisfl.wire.codecs import CodecError
from metisfl_controller.aggregation.admission import Use
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.fedavg import FedAvg
from metisfl_controller.clock import Clock
from metisfl_controller.conductor.fold_order import FoldOrder
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.conductor.serving import Serving
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.server.uploads import Uploads
from metisfl_controller.state.store import Contribution, RoundRecord, StateError


@dataclass(eq=False)
class Versions:
    """`accepted` holds the open round's contributions; it is emptied when the next one begins."""

    engine: Engine
    uploads: Uploads
    accepted: dict[TaskId, Contribution]
    progress: Progress
    serving: Serving
    metrics: ControllerMetrics
    clock: Clock
    log: ContextLogger
    order: FoldOrder | None
    """Set in deterministic mode."""
    _adding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _rule: FedAvg | None = None
    _bytes_at_begin: tuple[int, int] = (0, 0)

    async def adopt(self, task: TaskId) -> m.Committed | m.AggregationFailed:
        """Commit an upload as version 0; its layout is the federation's."""
        upload = self.uploads.of(task)
        layout, model = upload.encoding.layout, self.uploads.keep(upload)
        try:
            self.progress.take_layout(layout)
            version = await self.serving.encode(0, model)
        except CodecError as error:
            return m.AggregationFailed(f"the initial model: {error}")
        self.serving.begin(await self.progress.commit_initial(layout, model), version)
        self.log.info("initial model committed", extra={"learner": task.learner, "parameters": layout.parameters})
        return m.Committed(0)

    async def resume(self) -> None:
        """Serve the newest version that an earlier controller committed, if learners may still want it. Raises
        StateError."""
        stored = self.progress.latest
        if stored is None or self.progress.outcome is not None:
            return
        try:
            version = await self.serving.encode(stored.version, await self.progress.read_latest())
        except CodecError as error:
            raise StateError(f"cannot go on at version {stored.version}: {error}") from error
        self.serving.begin(stored, version)
        self.log.info("resumed at model version %d", stored.version)

    async def begin(self, number: int, started_at: float) -> None:
        """`started_at`: when the first round of all began."""
        assert self.progress.layout is not None
        if self._rule is None:
            uploads = self.progress.uploads
            assert uploads is not None
            self._rule = FedAvg(uploads, updates=not uploads.codec.lossless, allocate=self.progress.allocate)
        self.accepted.clear()
        self.abandon()
        self._bytes_at_begin = (self.metrics.bytes_sent, self.metrics.bytes_received)
        self.log.info("round begins", extra={"round": number})
        beginning = self.engine.begin(self._rule)
        await self.progress.in_store(lambda: self.progress.store.record_start(started_at))
        await beginning

    async def fold(self, task: TaskId, weight: float) -> None:
        """Add an upload to the round and free its place; in deterministic mode that may have to wait for others."""
        if self.order is None:
            await self._fold(task, weight)
            return
        self.order.arrived(task, weight)
        self.uploads.of(task).place.turn(Use.PARKED)
        await self._fold_in_order(self.order)

    async def _fold_in_order(self, order: FoldOrder) -> None:
        await asyncio.gather(*await self._queue_in_order(order))

    async def _queue_in_order(self, order: FoldOrder, *, closing: bool = False) -> list[asyncio.Future[None]]:
        folds = []
        async with self._adding:
            while following := order.next(closing=closing):
                folds.append(await self._queue(*following))
        return folds

    async def _fold(self, task: TaskId, weight: float) -> None:
        await (await self._queue(task, weight))

    async def _queue(self, task: TaskId, weight: float) -> asyncio.Future[None]:
        """Give an upload to the engine; what is returned is done when it has been added and its place is free."""
        upload = self.uploads.of(task)
        upload.place.turn(Use.WORKED_ON)
        await upload.place.settled()
        folded = self.engine.fold(upload.place.buffer, weight)
        folded.add_done_callback(lambda _: self.uploads.drop(upload))
        return folded

    def abandon(self) -> None:
        """The round under way will not be committed: free what was held back for it."""
        if self.order is not None:
            for task in self.order.reset():
                self.uploads.drop(self.uploads.of(task))

    async def commit(self, command: m.CommitRound) -> m.Committed | m.AggregationFailed:
        """Finish the mean and make it the newest version."""
        assert self.progress.layout is not None
        layout, closed_at = self.progress.layout, self.clock()
        folds = await self._queue_in_order(self.order, closing=True) if self.order is not None else []
        try:
            model = await self.engine.finish(await self.serving.base())
            await asyncio.gather(*folds)
        except ValueError as error:
            return m.AggregationFailed(f"round {command.number}: {error}")
        aggregated_at = self.clock()
        store = self.progress.store
        writing = asyncio.ensure_future(
            self.progress.in_store(lambda: store.write_model(command.number, layout, model))
        )
        try:
            version = await self.serving.encode(command.number, model)
        except CodecError as error:
            await writing
            return m.AggregationFailed(f"round {command.number}: {error}")
        stored = await writing
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
            contributed={task.learner: done for task, done in self.accepted.items()},
            lost=command.lost,
        )
        await self.progress.commit_round(stored, record)
        self.serving.begin(stored, version)
        self._tell(record)
        return m.Committed(command.number)

    def _tell(self, record: RoundRecord) -> None:
        seconds = record.ended_at - record.started_at
        self.metrics.rounds_committed.inc()
        self.metrics.round_seconds.observe(seconds)
        self.metrics.aggregation_seconds.observe(self.engine.seconds)
        self.metrics.commit_seconds.observe(record.commit_seconds)
        self.log.info(
            "round committed",
            extra={
                "round": record.number,
                "seconds": round(seconds, 3),
                "contributors": len(record.contributed),
                "lost": len(record.lost),
            },
        )

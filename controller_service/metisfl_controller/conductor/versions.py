"""Makes model versions of verified uploads: the state machine's begin, fold and commit.

Each is run as a task. Tasks start in the order in which they were made and the engine takes work in the order of the
calls, so a round's folds always precede its commit.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from metisfl.logs import ContextLogger
from metisfl.wire.layout import Layout
from metisfl_controller.aggregation.admission import Use
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.fedavg import FedAvg
from metisfl_controller.clock import Clock
from metisfl_controller.conductor.fold_order import FoldOrder
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.server.uploads import Uploads
from metisfl_controller.state.store import Contribution, RoundRecord


@dataclass(eq=False)
class Versions:
    """`accepted` holds the open round's contributions; it is emptied when the next one begins."""

    engine: Engine
    uploads: Uploads
    accepted: dict[TaskId, Contribution]
    progress: Progress
    metrics: ControllerMetrics
    clock: Clock
    log: ContextLogger
    order: FoldOrder | None
    """Set in deterministic mode."""
    _adding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _rule: FedAvg | None = None
    _bytes_at_begin: tuple[int, int] = (0, 0)

    async def adopt(self, task: TaskId) -> Layout:
        """Commit an upload as version 0; its layout is the federation's."""
        upload = self.uploads.of(task)
        layout, model = upload.layout, self.uploads.keep(upload)
        await self.progress.commit_initial(layout, model)
        self.log.info("initial model committed", extra={"learner": task.learner, "parameters": layout.parameters})
        return layout

    async def begin(self, number: int, started_at: float) -> None:
        """`started_at`: when the first round of all began."""
        assert self.progress.layout is not None
        if self._rule is None:
            self._rule = FedAvg(self.progress.layout)
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

    async def _fold_in_order(self, order: FoldOrder, *, closing: bool = False) -> None:
        # One at a time: how many models share a pass decides in which order they are added.
        async with self._adding:
            while following := order.next(closing=closing):
                await self._fold(*following)

    async def _fold(self, task: TaskId, weight: float) -> None:
        upload = self.uploads.of(task)
        upload.place.turn(Use.WORKED_ON)
        await upload.place.settled()
        await self.engine.fold(upload.place.buffer, weight)
        self.uploads.drop(upload)

    def abandon(self) -> None:
        """The round under way will not be committed: free what was held back for it."""
        if self.order is not None:
            for task in self.order.reset():
                self.uploads.drop(self.uploads.of(task))

    async def commit(self, command: m.CommitRound) -> m.Committed | m.AggregationFailed:
        """Finish the mean and make it the newest version."""
        assert self.progress.layout is not None
        layout, closed_at = self.progress.layout, self.clock()
        if self.order is not None:
            await self._fold_in_order(self.order, closing=True)
        try:
            model = await self.engine.finish()
        except ValueError as error:
            return m.AggregationFailed(f"round {command.number}: {error}")
        aggregated_at = self.clock()
        store = self.progress.store
        stored = await self.progress.in_store(lambda: store.write_model(command.number, layout, model))
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
        await self.progress.commit_round(stored, record, layout, model)
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

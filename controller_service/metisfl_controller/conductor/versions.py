"""Makes model versions of verified uploads: the state machine's begin, fold and commit.

Each is run as a task. Tasks start in the order in which they were made and take turns in that order, and so does the
engine: a round's folds always come after its beginning and before its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

from metisfl.logs import ContextLogger
from metisfl.wire.codecs import CodecError, Encoding
from metisfl.wire.layout import Buffer, LayoutError
from metisfl_controller.aggregation.admission import Use
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.rule import Rule, Staged
from metisfl_controller.clock import Clock
from metisfl_controller.conductor.fold_order import FoldOrder
from metisfl_controller.conductor.lineage import LineageKeeper
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.conductor.serving import Serving
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.server.uploads import Upload, Uploads
from metisfl_controller.state.records import Contribution, RoundRecord, StateError


@dataclass(eq=False)
class Versions:
    """`accepted` holds the contributions that are in no committed version yet."""

    engine: Engine
    uploads: Uploads
    accepted: dict[TaskId, Contribution]
    progress: Progress
    serving: Serving
    metrics: ControllerMetrics
    clock: Clock
    log: ContextLogger
    rule_of: Callable[[Encoding], Rule]
    """Makes the rule once it is known how uploads are encoded."""
    order_of: Callable[[Rule], FoldOrder]
    lineage: LineageKeeper | None
    """Set where updates are kept after they were folded."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _rule: Rule | None = None
    _order: FoldOrder | None = None
    _bytes_at_begin: tuple[int, int] = (0, 0)

    async def adopt(self, task: TaskId) -> m.Committed | m.AggregationFailed:
        """Commit an upload as version 0; its layout is the federation's."""
        upload = self.uploads.of(task)
        layout, model = upload.sections.model.layout, self.uploads.keep(upload)
        try:
            self.progress.take_layout(layout)
            rule = self._make_rule()
            version = await self.serving.encode(0, model, rule.control())
        except (CodecError, LayoutError) as error:
            return m.AggregationFailed(f"the initial model: {error}")
        del self.accepted[task]
        self.serving.begin(await self.progress.commit_initial(layout, model), version, keep_base=rule.needs_base)
        self.log.info("initial model committed", extra={"learner": task.learner, "parameters": layout.parameters})
        return m.Committed(0)

    async def resume(self) -> None:
        """Serve the newest version that an earlier controller committed, if learners may still want it. Raises
        StateError."""
        stored = self.progress.latest
        if stored is None or self.progress.outcome is not None:
            return
        rule, state = self._make_rule(), await self.progress.read_rule_state()
        try:
            if state:
                await self.engine.run(lambda: rule.restore(state))
            version = await self.serving.encode(stored.version, await self.progress.read_latest(), rule.control())
        except ValueError as error:
            raise StateError(f"cannot go on at version {stored.version}: {error}") from error
        self.serving.begin(stored, version, keep_base=rule.needs_base)
        self.log.info("resumed at model version %d", stored.version)

    def _make_rule(self) -> Rule:
        assert self.progress.uploads is not None
        self._rule = self.rule_of(self.progress.uploads.model)
        self._order = self.order_of(self._rule)
        return self._rule

    async def begin(self, number: int, started_at: float) -> None:
        """`started_at`: when the first round of all began."""
        assert self._rule is not None
        self.abandon()
        self._bytes_at_begin = (self.metrics.bytes_sent, self.metrics.bytes_received)
        self.log.info("round begins", extra={"round": number})
        async with self._turn:
            beginning = self.engine.begin(self._rule, await self.serving.base())
        await self.progress.in_store(lambda: self.progress.store.record_start(started_at))
        await beginning

    async def fold(self, fold: m.Fold) -> None:
        """Give an upload to the rule and free its place; that may have to wait for others."""
        assert self._order is not None
        self._order.arrived(fold)
        folds = []
        async with self._turn:
            while following := self._order.next():
                folds.append(await self._queue(following))
        if self._order.holds(fold):
            self.uploads.of(fold.task).place.turn(Use.PARKED)
        await asyncio.gather(*folds)

    async def _queue(self, fold: m.Fold) -> asyncio.Future[None]:
        """Give an upload to the engine; what is returned is done when it has been added and its place is free."""
        upload = self.uploads.of(fold.task)
        folded = self.engine.fold(await self._staged(fold))
        folded.add_done_callback(lambda _: self._used(upload))
        return folded

    def _used(self, upload: Upload) -> None:
        """An upload is part of the sums."""
        if self.lineage is None:
            self.uploads.drop(upload)
        elif self.uploads.hand_over(upload):
            self.lineage.take(upload)

    async def _staged(self, fold: m.Fold) -> Staged:
        """An upload as the rule takes it, from a place where it stays until it is dropped."""
        place = self.uploads.of(fold.task).place
        place.turn(Use.WORKED_ON)
        await place.settled()
        return Staged(place.buffer, fold.weight, fold.task.learner, fold.steps, fold.scale)

    def abandon(self) -> None:
        """The round under way will not be committed: free what was held back for it."""
        if self._order is not None:
            for fold in self._order.reset():
                self.uploads.drop(self.uploads.of(fold.task))

    async def _finish(self) -> Buffer:
        """The model that the round's uploads make. Raises ValueError."""
        assert self._order is not None
        async with self._turn:
            rest = self._order.rest()
            finishing = self.engine.finish([await self._staged(fold) for fold in rest])
        try:
            return await finishing
        finally:
            for fold in rest:
                self._used(self.uploads.of(fold.task))

    async def commit(self, command: m.CommitRound, keep: Set[int]) -> m.Committed | m.AggregationFailed:
        """Finish the model and make it the newest version. `keep`: earlier versions whose files are still needed."""
        assert self.progress.layout is not None
        assert self._rule is not None
        layout, rule, closed_at = self.progress.layout, self._rule, self.clock()
        try:
            model = await self._finish()
        except ValueError as error:
            return m.AggregationFailed(f"round {command.number}: {error}")
        aggregated_at = self.clock()
        store = self.progress.store
        writing = asyncio.ensure_future(
            self.progress.in_store(
                lambda: (
                    store.write_model(command.number, layout, model),
                    store.write_rule_state(command.number, rule.state()),
                )
            )
        )
        try:
            version = await self.serving.encode(command.number, model, rule.control())
        except CodecError as error:
            await writing
            return m.AggregationFailed(f"round {command.number}: {error}")
        stored, state = await writing
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
            contributed=self._contributed(command.tasks),
            lost=command.lost,
            tasks=tuple(map(str, command.tasks)),
        )
        await self.progress.commit_round(stored, record, state, keep)
        for task in command.tasks:
            self.metrics.update_staleness.observe(command.number - 1 - task.base_version)
            del self.accepted[task]
        self.serving.begin(stored, version, keep_base=rule.needs_base)
        self._tell(record)
        return m.Committed(command.number)

    def _contributed(self, tasks: Iterable[TaskId]) -> dict[str, Contribution]:
        """What each learner did, in one task or more."""
        done: dict[str, Contribution] = {}
        for task in tasks:
            before, this = done.get(task.learner), self.accepted[task]
            done[task.learner] = this if before is None else before.followed_by(this)
        return done

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

"""What has been committed, as the servers show it, and the one thread in which it becomes durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from metisfl.wire.layout import Buffer, Layout
from metisfl_controller.aggregation.memory import ModelMemory
from metisfl_controller.rounds.evaluation import Mean
from metisfl_controller.server.downloads import GlobalModel
from metisfl_controller.state.store import Outcome, RoundRecord, Snapshot, Store, StoredVersion

T = TypeVar("T")


class Progress:
    """One federation's committed state. The store's thread takes work in the order of the calls."""

    def __init__(self, store: Store, memory: ModelMemory) -> None:
        self.store = store
        self._memory = memory
        self.incarnation = 0
        self.layout: Layout | None = None
        self.latest: StoredVersion | None = None
        self.model: GlobalModel | None = None
        self.outcome: Outcome | None = None
        self.version_metrics: dict[int, dict[str, Mean]] = {}
        self.contributions: dict[str, int] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def in_store(self, call: Callable[[], T]) -> T:
        """Run a blocking call of the store in its thread, after those before it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def load(self) -> Snapshot:
        """Take over what an earlier controller committed. Raises StateError."""
        snapshot = await self.in_store(self.store.snapshot)
        self.incarnation, self.layout, self.latest = snapshot.incarnation, snapshot.layout, snapshot.latest
        self.outcome = snapshot.outcome
        self.version_metrics = await self.in_store(self.store.metrics)
        for record in await self.in_store(self.store.rounds):
            self._count(record)
        stored, layout = snapshot.latest, snapshot.layout
        if stored is not None and layout is not None and self.outcome is None:
            allocate = self._memory.allocator(layout)
            model = await self.in_store(lambda: self.store.read(stored, layout, allocate))
            self.model = GlobalModel(stored.version, layout, model)
        return snapshot

    async def commit_initial(self, layout: Layout, model: Buffer) -> None:
        self.latest = await self.in_store(lambda: self.store.commit_initial(layout, model))
        self.layout, self.model = layout, GlobalModel(0, layout, model)

    async def commit_round(self, stored: StoredVersion, record: RoundRecord, layout: Layout, model: Buffer) -> None:
        await self.in_store(lambda: self.store.commit_round(stored, record))
        self.latest, self.model = stored, GlobalModel(stored.version, layout, model)
        self._count(record)

    async def record_metrics(self, version: int, means: dict[str, Mean]) -> None:
        self.version_metrics[version] = means
        await self.in_store(lambda: self.store.record_metrics(version, means))

    async def record_outcome(self, outcome: Outcome) -> None:
        await self.in_store(lambda: self.store.record_outcome(outcome))
        self.outcome = outcome

    async def close(self) -> None:
        await self.in_store(self.store.close)
        self._thread.shutdown()

    def _count(self, record: RoundRecord) -> None:
        for learner in record.contributed:
            self.contributions[learner] = self.contributions.get(learner, 0) + 1

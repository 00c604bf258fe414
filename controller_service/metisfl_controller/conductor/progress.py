"""What has been committed, as the servers show it, and the one thread in which it becomes durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from metisfl.spec.termination import MetricSource
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.sections import Sections
from metisfl.wire.transport import Transport
from metisfl_controller.aggregation.mapped import mapped_zeros
from metisfl_controller.aggregation.memory import ModelMemory
from metisfl_controller.rounds.evaluation import Mean
from metisfl_controller.rounds.messages import RecordMetrics
from metisfl_controller.rounds.selection.selector import History
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.rounds.termination.termination import Observed
from metisfl_controller.state.records import Outcome, RoundRecord, Snapshot, StoredVersion
from metisfl_controller.state.rule_states import StoredState
from metisfl_controller.state.store import Store

T = TypeVar("T")


class Progress:
    """One federation's committed state. The store's thread takes work in the order of the calls."""

    def __init__(self, store: Store, memory: ModelMemory, transport: Transport) -> None:
        self.store = store
        self.transport = transport
        self._memory = memory
        self.incarnation = 0
        self.layout: Layout | None = None
        self.uploads: Sections | None = None
        """What results of training consist of, once the layout is known."""
        self.downloads: Sections | None = None
        self.latest: StoredVersion | None = None
        self.outcome: Outcome | None = None
        self.version_metrics: dict[int, dict[str, Mean]] = {}
        """By learners, of every evaluated version."""
        self.evaluator_metrics: dict[int, dict[str, Mean]] = {}
        """By evaluators."""
        self.observed: list[Observed] = []
        """Conclusive metrics of earlier controllers, of versions before the one they left."""
        self.contributions: dict[str, int] = {}
        self.learners: dict[str, History] = {}
        """What each did in committed rounds."""
        self.counted: dict[str, str] = {}
        """The latest task of each learner whose result is in a version."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def in_store(self, call: Callable[[], T]) -> T:
        """Run a blocking call of the store in its thread, after those before it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def load(self) -> Snapshot:
        """Take over what an earlier controller committed. Raises StateError."""
        snapshot = await self.in_store(self.store.snapshot)
        self.incarnation, self.latest, self.outcome = snapshot.incarnation, snapshot.latest, snapshot.outcome
        if snapshot.layout is not None:
            self.take_layout(snapshot.layout)
        self.version_metrics = await self.in_store(self.store.metrics)
        self.evaluator_metrics = await self.in_store(lambda: self.store.metrics(MetricSource.EVALUATORS))
        if snapshot.latest is not None:
            newest = snapshot.latest.version
            self.observed = await self.in_store(lambda: self.store.observed(newest))
        for record in await self.in_store(self.store.rounds):
            self._count(record)
        return snapshot

    async def read_latest(self) -> Buffer:
        """The newest version from its file. Raises StateError."""
        assert self.latest is not None
        assert self.layout is not None
        stored, layout = self.latest, self.layout
        return await self.in_store(lambda: self.store.read(stored, layout, self.allocate))

    async def read_rule_state(self) -> dict[str, Buffer]:
        """What the aggregation rule kept with the newest version. Raises StateError."""
        assert self.latest is not None
        stored = self.latest
        return await self.in_store(lambda: self.store.read_rule_state(stored, self.allocate))

    async def read_mapped(self, version: int) -> Buffer | None:
        """A version from its file, in a mapped file; None when it is not stored any more. Raises StateError and
        OSError."""
        layout, store = self.layout, self.store
        if layout is None:
            return None

        def read() -> Buffer | None:
            found = store.version(version)
            return store.read(found, layout, self.allocate_mapped) if found and found.stored else None

        return await self.in_store(read)

    def allocate_mapped(self, nbytes: int) -> Buffer:
        """A mapped file. Raises OSError when the disk has no room."""
        return mapped_zeros(self._memory.directory, nbytes)

    def allocate(self, nbytes: int) -> Buffer:
        """A buffer for something of model size, where the memory budget has room. Raises OSError when there is none."""
        assert self.layout is not None
        return self._memory.allocator(self.layout)(nbytes)

    def take_layout(self, layout: Layout) -> None:
        """This is the federation's layout from now on. Raises CodecError when the codec has no form for it, LayoutError
        when it can have no control variates."""
        self.uploads, self.downloads = self.transport.upload_sections(layout), self.transport.download_sections(layout)
        self.layout = layout

    async def commit_initial(self, layout: Layout, model: Buffer) -> StoredVersion:
        return await self.in_store(lambda: self.store.commit_initial(layout, model))

    async def commit_round(
        self, stored: StoredVersion, record: RoundRecord, state: StoredState | None, keep: Set[int]
    ) -> None:
        await self.in_store(lambda: self.store.commit_round(stored, record, state, keep))
        self._count(record)

    async def record_metrics(self, known: RecordMetrics) -> None:
        of_source = self.version_metrics if known.source is MetricSource.LEARNERS else self.evaluator_metrics
        of_source[known.version] = dict(known.means)
        await self.in_store(
            lambda: self.store.record_metrics(known.version, known.means, known.source, known.conclusive)
        )

    async def published(self) -> StoredVersion | None:
        """The version that the outcome names, once there is one."""
        number = self.outcome.published_version if self.outcome else None
        return None if number is None else await self.in_store(lambda: self.store.version(number))

    async def publishable(self, wanted: int | None, message: str) -> tuple[int | None, str]:
        """The version to publish: the wanted one, or the newest, and a word about it, when its file is kept no more."""
        versions = await self.in_store(self.store.versions)
        if wanted is None or not versions or any(v.stored for v in versions if v.version == wanted):
            return wanted, message
        newest = versions[-1].version
        if newest == wanted:  # without checkpoints there are no files
            return wanted, message
        return newest, f"{message}; that version is not kept any more, so version {newest} is published"

    async def record_outcome(self, outcome: Outcome) -> None:
        await self.in_store(lambda: self.store.record_outcome(outcome))
        self.outcome = outcome

    async def close(self) -> None:
        await self.in_store(self.store.close)
        self._thread.shutdown()

    def _count(self, record: RoundRecord) -> None:
        for learner in record.contributed:
            self.contributions[learner] = self.contributions.get(learner, 0) + 1
        for learner in (*record.contributed, *record.lost):
            before = self.learners.get(learner, History())
            told = record.contributed[learner].metrics if learner in record.contributed else {}
            self.learners[learner] = History(record.number, before.rounds + 1, {**before.metrics, **told})
        for task in sorted(map(TaskId.parse, record.tasks), key=lambda task: (task.base_version, task.attempt)):
            self.counted[task.learner] = str(task)

"""Carries committed versions to the destination: behind the rounds, again and again until it works, never in their way.

What has arrived is read from the lineage file over there, which is written after it; nothing is remembered here, so a
controller that starts again goes on where the last one stopped. The file tells of the whole run: written anew for each
version, it would cost more and more, so quick versions share one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from metisfl.api import OutputDocument
from metisfl.logs import ContextLogger
from metisfl.spec import Federation
from metisfl.spec.output import OutputSpec, OutputVersions
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.metrics import ControllerMetrics
from metisfl_controller.output.destination import Destination, DestinationError
from metisfl_controller.output.lineage import LINEAGE_FILE, delivered_by, lineage
from metisfl_controller.state.records import Outcome, StoredVersion

FINAL_SECONDS = 600.0
"""How long the end of a run waits for its model to arrive; after that it is tried while the controller lives."""

LINEAGE_SECONDS = 60.0
"""How long the lineage file may lack what has arrived."""

_LEAVE_SECONDS, _CLOSE_SECONDS = 30.0, 5.0
"""What the last lineage file may take at a destination that the spec names no longer, and as the controller closes."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
_SECONDS, _BYTES_PER_SECOND = 120.0, 256 << 10
"""What one upload may take: so many seconds, and the time that its bytes take at a slow pace."""

Open = Callable[[str, str], Destination]
"""From spec.output.url and a folder below it to the destination. Raises DestinationError."""


@dataclass
class _Target:
    """A destination, and which versions lie there."""

    output: OutputSpec
    destination: Destination
    delivered: set[int]
    described_at: float | None = None
    """When this process last wrote the lineage file, in the event loop's time; the first one shows that the destination
    takes something."""
    end_described: bool = False
    untold: bool = False
    """Whether something has arrived that the lineage file does not tell of."""

    def seconds_to_tell(self, now: float) -> float | None:
        """How long the lineage file may wait; None: it lacks nothing."""
        if self.described_at is None:
            return 0.0
        return max(0.0, self.described_at + LINEAGE_SECONDS - now) if self.untold else None


class Delivery:
    """One federation's deliveries. `start` and `close` bound their life; `poke` says that there may be more to do."""

    def __init__(
        self,
        federation: Callable[[], Federation],
        uid: str,
        progress: Progress,
        open_: Open,
        metrics: ControllerMetrics,
        log: ContextLogger,
    ) -> None:
        self._federation = federation
        self._uid = uid
        self._progress = progress
        self._open = open_
        self._metrics = metrics
        self._log = log
        self._more = asyncio.Event()
        self._settled = asyncio.Event()
        self._target: _Target | None = None
        self._pending = 0
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    # ---- life

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="delivery")

    def poke(self) -> None:
        """A version was committed, the run has ended, or the spec has changed."""
        self._settled.clear()
        self._more.set()

    async def finish(self, seconds: float = FINAL_SECONDS) -> None:
        """The run has ended: wait until its model has arrived, but not for ever."""
        self.poke()
        if self._output is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled.wait()
            return
        self._log.error("the final model has not arrived within %.0f s: %s", seconds, self._trouble or "still going")

    async def close(self) -> None:
        """Whoever waits is let go; what is half-way over there is not seen by anybody."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._settled.set()
        if self._target is not None:
            await self._leave(self._target, _CLOSE_SECONDS)

    @property
    def document(self) -> OutputDocument | None:
        """How deliveries stand; None when the spec asks for none."""
        output = self._output
        if output is None:
            return None
        delivered = self._target.delivered if self._target else set()
        return OutputDocument(
            url=f"{output.url.rstrip('/')}/{self._folder}",
            delivered=max(delivered, default=None),
            pending=self._pending,
            message=self._trouble,
        )

    # ---- work

    @property
    def _output(self) -> OutputSpec | None:
        return self._federation().spec.output

    @property
    def _folder(self) -> str:
        """Of this federation alone: one that is made again under the same name has another UID."""
        return f"{self._federation().metadata.name}-{self._uid[:8]}"

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._more.clear()
            output = self._output
            if self._target is not None and self._target.output != output:
                await self._leave(self._target, _LEAVE_SECONDS)
                self._target = None
            if output is None:
                self._settled.set()
            elif await self._succeeds(output):
                pause = FIRST_PAUSE_SECONDS
                if not self._more.is_set():
                    self._settled.set()
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._target.seconds_to_tell(_now()) if self._target else None):
                    await self._more.wait()

    async def _succeeds(self, output: OutputSpec) -> bool:
        try:
            await self._deliver(output)
        except (DestinationError, TimeoutError) as error:
            self._failed(str(error) or "no answer in time")
        except Exception as error:  # noqa: BLE001 - whatever it is, training goes on, and a condition says it
            self._log.exception("delivery failed")
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self._trouble = ""
            return True
        return False

    def _failed(self, words: str) -> None:
        if words != self._trouble:
            self._log.warning("models cannot be delivered: %s", words)
        self._trouble = words
        self._metrics.upload_to_output("failed")

    async def _deliver(self, output: OutputSpec) -> None:
        """Carry over what is wanted and not there yet, and tell of it in the lineage file."""
        if self._target is None:
            self._target = await self._reach(output)
        target = self._target
        if self._progress.outcome is not None and not target.end_described:
            await self._describe(target)
        await self._tell(target)
        while version := await self._next(target):
            path = self._progress.store.path(version)
            async with asyncio.timeout(_SECONDS + version.bytes / _BYTES_PER_SECOND):
                await target.destination.write(version.file, path)
            target.delivered.add(version.version)
            self._metrics.upload_to_output("delivered")
            target.untold = True
            self._log.info("model delivered", extra={"version": version.version, "url": output.url})
            await self._tell(target)
        if self._progress.outcome is not None and target.untold:
            await self._describe(target)

    async def _leave(self, target: _Target, seconds: float) -> None:
        """Tell once of what lies there, if that works; nothing more is done with this destination."""
        if not target.untold:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._describe(target)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next destination or the close is to come
            words = str(error) or type(error).__name__
            self._log.warning("%s at %s lacks what came last: %s", LINEAGE_FILE, target.output.url, words)

    async def _reach(self, output: OutputSpec) -> _Target:
        destination = self._open(output.url, self._folder)
        async with asyncio.timeout(_SECONDS):
            return _Target(output, destination, delivered_by(await destination.read(LINEAGE_FILE), self._uid))

    async def _next(self, target: _Target) -> StoredVersion | None:
        versions = await self._progress.in_store(self._progress.store.stored)
        missing = [
            version
            for version in wanted(versions, self._progress.outcome, target.output.versions)
            if version.version not in target.delivered and self._progress.store.path(version).exists()
        ]
        self._pending = len(missing)
        self._metrics.output_pending.set(self._pending)
        return missing[0] if missing else None

    async def _tell(self, target: _Target) -> None:
        if target.seconds_to_tell(_now()) == 0:
            await self._describe(target)

    async def _describe(self, target: _Target) -> None:
        progress, federation = self._progress, self._federation()
        outcome = progress.outcome
        # In a thread: of a long run it is large.
        text = await asyncio.to_thread(
            lineage,
            federation.metadata.name,
            self._uid,
            federation.spec,
            await progress.in_store(progress.store.versions),
            await progress.in_store(progress.store.rounds),
            dict(progress.version_metrics),
            outcome,
            frozenset(target.delivered),
        )
        async with asyncio.timeout(_SECONDS):
            await target.destination.write(LINEAGE_FILE, text)
        target.described_at, target.end_described, target.untold = _now(), outcome is not None, False


def _now() -> float:
    return asyncio.get_running_loop().time()


def wanted(stored: Sequence[StoredVersion], outcome: Outcome | None, which: OutputVersions) -> list[StoredVersion]:
    """Which of the versions with a file belong over there, oldest first; a published one before all others."""
    published = [v for v in stored if outcome is not None and v.version == outcome.published_version]
    others = [v for v in stored if which is OutputVersions.ALL and v not in published]
    return published + others

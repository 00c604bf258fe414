"""Keeps learners' updates on disk after they were folded, without holding anything up.

An update waits for the disk in its place in staging, parked: when others want in, it is moved to a file like any that
waits. If the disk is full, or so slow that too many wait, updates are not kept, which is said and harms nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from metisfl.logs import ContextLogger
from metisfl_controller.aggregation.admission import Use
from metisfl_controller.server.uploads import Upload
from metisfl_controller.state.lineage import KeptUpdate, Lineage

MAX_WAITING = 1000


class LineageKeeper:
    """One thread that writes, and a queue before it. Used from the event loop."""

    def __init__(self, lineage: Lineage, log: ContextLogger) -> None:
        self._lineage = lineage
        self._log = log
        self._waiting: deque[Upload] = deque()
        self._working: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lineage")

    def take(self, upload: Upload) -> None:
        """Keep an update that nobody else uses any more, and free its place."""
        if len(self._waiting) >= MAX_WAITING:
            self._log.warning("an update is not kept: %d wait for the disk already", MAX_WAITING, extra=_of(upload))
            upload.place.leave()
            return
        upload.place.turn(Use.PARKED)
        self._waiting.append(upload)
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())

    async def kept(self) -> list[KeptUpdate]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._lineage.updates)

    async def close(self, seconds: float) -> None:
        """Write what waits, but not for longer than so many seconds."""
        if self._working is not None:
            await asyncio.wait({self._working}, timeout=seconds)
            self._working.cancel()
        self._thread.shutdown()

    async def _work(self) -> None:
        while self._waiting:
            upload = self._waiting.popleft()
            try:
                await self._write(upload)
            except (OSError, MemoryError, ValueError) as error:
                self._log.warning("an update is not kept: %s", error, extra=_of(upload))
            finally:
                upload.place.leave()

    async def _write(self, upload: Upload) -> None:
        place, encoding = upload.place, upload.sections.model
        place.turn(Use.WORKED_ON)
        await place.settled()
        content = place.buffer[: encoding.nbytes]
        await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._lineage.write(upload.task, encoding, content)
        )


def _of(upload: Upload) -> dict[str, object]:
    return {"learner": upload.task.learner, "version": upload.task.base_version}

"""Where uploads land: slots in memory, reused, and mapped files for what has to be moved aside.

Who comes in when, and who is moved, is for `admission` to decide; this module has the bytes. All of it is used from the
event loop; what may wait for a disk happens in the executor's threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from metisfl.logs import ContextLogger
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.aggregation.admission import Admission, Admit, MoveAside, Use
from metisfl_controller.aggregation.mapped import PREFIX, MappedFile
from metisfl_controller.aggregation.memory import MemoryPlan

LOOK_SECONDS = 0.25
"""How often the queue is looked at while somebody waits and nothing else happens."""


class Place:
    """One upload's place in staging.

    `let_in` is done when there is room for its bytes; it fails with OSError when there never will be. `buffer` becomes
    another one when the upload is moved aside: look it up each time.
    """

    buffer: Buffer

    def __init__(self, pool: StagingPool, received: Callable[[], int]) -> None:
        self.let_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = received
        self.file: MappedFile | None = None
        self.has_left = False
        self._pool = pool
        self._pending: asyncio.Future[None] | None = None

    @property
    def in_memory(self) -> bool:
        return self.let_in.done() and self.file is None

    def write(self, offset: int, data: memoryview) -> Awaitable[None] | None:
        """Put bytes in place: at once when that is in memory. Otherwise the result is to be awaited before the next
        write, and raises OSError when the disk fails; the bytes are written also if whoever awaits it is cancelled."""
        if self.file is None:
            self.buffer.data[offset : offset + len(data)] = data
            return None
        file = self.file
        self.begin(lambda: file.write(offset, data))
        return self.settled()

    def begin(self, writing: Callable[[], None]) -> asyncio.Future[None]:
        """Write in a thread, after what was begun before and only if that succeeded."""
        self._pending = asyncio.ensure_future(self._write_after(self._pending, writing))
        return self._pending

    async def _write_after(self, before: asyncio.Future[None] | None, writing: Callable[[], None]) -> None:
        if before is not None:
            await before
        await asyncio.get_running_loop().run_in_executor(self._pool.executor, writing)

    async def settled(self) -> None:
        """Everything written is in place. Raises OSError."""
        if self._pending is not None:
            pending = self._pending
            await asyncio.wait({pending})
            if self._pending is pending:
                self._pending = None
            pending.result()

    def turn(self, use: Use) -> None:
        """Say what is done with the upload from now on."""
        self._pool.turn(self, use)

    def leave(self) -> None:
        """Free the place, or stop waiting for one; harmless when repeated."""
        self._pool.leave(self)

    def keep(self) -> Buffer:
        """Free the place and own its bytes, which must be settled."""
        buffer = self.buffer
        self._pool.leave(self, reuse=False)
        return buffer

    def close_file(self) -> None:
        """Close it once nothing is written to it any more."""
        if self.file is None:
            return
        file = self.file
        if self._pending is None or self._pending.done():
            file.close()
        else:
            self._pending.add_done_callback(lambda _: file.close())


class StagingPool:
    """The places of uploads of one size, as the plan says."""

    def __init__(self, directory: Path, plan: MemoryPlan, executor: Executor, log: ContextLogger) -> None:
        self.plan = plan
        self.executor = executor
        self._directory = directory
        self._log = log
        self._admission: Admission[Place] = Admission(plan.slots, plan.slot_bytes, lambda place: place.received())
        self._unused: list[Buffer] = []
        self._timer: asyncio.TimerHandle | None = None

    def request(self, received: Callable[[], int]) -> Place:
        """A place for one upload, at once or when it is its turn. `received`: how many of its bytes have arrived."""
        place = Place(self, received)
        self._admission.request(place, self._now)
        self._decide()
        return place

    def turn(self, place: Place, use: Use) -> None:
        self._admission.turn(place, use, self._now)
        self._decide()

    def leave(self, place: Place, *, reuse: bool = True) -> None:
        if place.has_left:
            return
        place.has_left = True
        self._admission.leave(place)
        if place.file is not None:
            place.close_file()
        elif place.let_in.done() and reuse:
            self._unused.append(place.buffer)
        place.let_in.cancel()
        self._decide()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _decide(self) -> None:
        while decisions := self._admission.decide(self._now):
            for decision in decisions:
                match decision:
                    case Admit(place, aside):
                        self._let_in(place, aside)
                    case MoveAside(place):
                        self._move_aside(place)
        if self._timer is None and self._admission.waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        self._decide()

    def _let_in(self, place: Place, aside: bool) -> None:
        memory = None if aside or self.plan.on_disk else self._memory()
        if memory is None:
            try:
                place.file = MappedFile(self._directory, self.plan.slot_bytes)
            except OSError as error:
                self._keep_out(place, error)
                return
            place.buffer = place.file.buffer
        else:
            place.buffer = memory
        place.let_in.set_result(None)

    def _keep_out(self, place: Place, error: OSError) -> None:
        self._admission.not_admitted(place, self._now)
        if self._admission.in_slots or self._admission.aside:
            self._log.warning("an upload waits for room: %s", error)
            return
        # Nothing in here will ever make room for it.
        self._admission.leave(place)
        place.has_left = True
        place.let_in.set_exception(error)

    def _memory(self) -> Buffer | None:
        # The one used last: its pages are there, and the caches may know them.
        if self._unused:
            return self._unused.pop()
        try:
            return aligned_zeros(self.plan.slot_bytes)
        except MemoryError:
            return None

    def _move_aside(self, place: Place) -> None:
        if place.file is not None:
            self._admission.moved(place)
            return
        try:
            file = MappedFile(self._directory, self.plan.slot_bytes)
        except OSError as error:
            self._log.warning("an upload keeps its place in memory although others wait: %s", error)
            self._admission.not_moved(place, self._now)
            return
        memory, arrived = place.buffer, place.received()
        place.file, place.buffer = file, file.buffer
        copied = place.begin(lambda: file.write(0, memory.data[:arrived]))
        copied.add_done_callback(lambda _: self._moved(place, memory, copied))

    def _moved(self, place: Place, memory: Buffer, copied: asyncio.Future[None]) -> None:
        if not copied.cancelled() and (error := copied.exception()):
            # Whoever fills the place, or works on it, hears of it as well.
            self._log.error("an upload could not be copied to disk: %s", error)
        self._unused.append(memory)
        self._admission.moved(place)
        self._decide()


def remove_left_overs(directory: Path) -> None:
    """Make the directory, without the files of a controller that was killed while it made them."""
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob(f"{PREFIX}*"):
        left_over.unlink()

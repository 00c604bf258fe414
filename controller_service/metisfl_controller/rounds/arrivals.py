"""Results that came without rounds: which of them count, in which version, and for how much; see `buffer_training`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from metisfl_controller.rounds.protocols.parameters import Buffering
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.rounds.work import Work


class Arrivals:
    """The buffer of the version in the making, and before it a queue of what has to wait for the next one."""

    def __init__(self, buffering: Buffering, newest: int, counted: Iterable[TaskId]) -> None:
        """`newest` version; `counted`: tasks whose results are in a version already."""
        self.buffering = buffering
        self.newest = newest
        self.buffer: list[TaskId] = []
        """What goes into the version in the making."""
        self._waiting: deque[tuple[TaskId, Work]] = deque()
        """For the next version: this one is full, or being written."""
        self._counted = set(counted)
        """In a version, or will be in one: none counts twice."""

    @property
    def full(self) -> bool:
        return len(self.buffer) >= self.buffering.size

    def counted(self, task: TaskId) -> bool:
        return task in self._counted

    def too_old(self, task: TaskId) -> bool:
        return self.newest - task.base_version > self.buffering.max_staleness

    def why_too_old(self, task: TaskId) -> str:
        return (
            f"it is trained from version {task.base_version} and the newest is {self.newest}: more than "
            f"maxStaleness {self.buffering.max_staleness}"
        )

    def add(self, task: TaskId, work: Work) -> None:
        """A result has arrived; `fill` says when it goes into the buffer."""
        self._counted.add(task)
        self._waiting.append((task, work))

    def drop_old(self) -> list[TaskId]:
        """What has become too old while it waited, and does not count after all."""
        dropped = [task for task, _ in self._waiting if self.too_old(task)]
        self._waiting = deque((task, work) for task, work in self._waiting if not self.too_old(task))
        self._counted = {task for task in self._counted if not self.too_old(task)}
        return dropped

    def fill(self) -> Iterator[tuple[TaskId, Work, float]]:
        """What goes into the buffer now, as far as there is room, and how much of each update."""
        while self._waiting and not self.full:
            task, work = self._waiting.popleft()
            self.buffer.append(task)
            yield task, work, self.buffering.mixing * self.buffering.weight(self.newest - task.base_version)

    def committed(self, version: int) -> None:
        """The buffer is in this version, the newest."""
        self.newest = version
        self.buffer.clear()

    def abandon(self) -> None:
        """There will be no further version."""
        self.buffer.clear()
        self._waiting.clear()

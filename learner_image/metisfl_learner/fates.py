"""What the controller says about uploads, on its way to what remembers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from metisfl_learner.updates import UpdateEncoder
from metisfl_learner.worker import Worker


class Fates:
    """Tells an encoder in the worker, and so in order, and before a task that is started later."""

    def __init__(self, group: asyncio.TaskGroup, worker: Worker, encoder: UpdateEncoder) -> None:
        self._group = group
        self._worker = worker
        self._encoder = encoder
        self._waiting: set[asyncio.Task[None]] = set()

    def accepted(self, task_id: str) -> None:
        self._tell(self._encoder.accepted, task_id)

    def forgotten(self, task_id: str) -> None:
        self._tell(self._encoder.forget, task_id)

    def cancel(self) -> None:
        """Drop what has not been told: the worker may be busy with code that never ends."""
        for telling in self._waiting:
            telling.cancel()

    def _tell(self, fate: Callable[[str], None], task_id: str) -> None:
        if self._encoder.remembers:
            telling = self._group.create_task(self._worker.run(lambda: fate(task_id)))
            self._waiting.add(telling)
            telling.add_done_callback(self._waiting.discard)

"""The one thread in which a learner's own code runs, so that heartbeats go on meanwhile."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs calls one after the other. The thread is a daemon: a call that never returns cannot keep the process."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._busy = False
        threading.Thread(target=self._work, name="learner", daemon=True).start()

    @property
    def busy(self) -> bool:
        """A call is running; it may be one whose caller was cancelled."""
        return self._busy

    async def run(self, call: Callable[[], T]) -> T:
        """Wait for the calls before this one, then for this one. Cancelling drops a call that has not begun, and
        leaves one that has to come to its own end."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            self._busy = True
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller
                self._busy = False
                future.set_exception(error)
            else:
                self._busy = False
                future.set_result(result)
            del future, call

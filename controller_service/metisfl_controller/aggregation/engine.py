"""The one thread that runs kernels: it folds verified uploads while others still arrive.

Work is queued in the order of the calls, all made from the event loop, and each call returns a future of that loop.
Work whose future is cancelled before its turn is skipped. Folds are done in order, and all before a `finish` that was
queued behind them; checks do not wait for folds.

A fold waits for company as long as a fold takes: whoever comes meanwhile shares the pass over the sums, which costs
more than one model does; and the round's last folds are usually done in the same pass as its end.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer
from metisfl_controller.aggregation.kernels import flaws, runtime
from metisfl_controller.aggregation.kernels.runtime import Kernels
from metisfl_controller.aggregation.rule import Rule, Staged

T = TypeVar("T")

MAX_PATIENCE_SECONDS = 0.02
"""Beyond, it would be the uploads that wait for memory."""


@dataclass
class _Fold:
    upload: Staged
    done: Future[None] = field(default_factory=Future)


@dataclass
class _Finish:
    last: Sequence[Staged]
    done: Future[Buffer] = field(default_factory=Future)


@dataclass
class _Call:
    """Anything else; `barrier`: it must see all folds queued before it, and none after."""

    run: Callable[[], None]
    barrier: bool


_Item = _Fold | _Finish | _Call
_CLOSE = _Call(lambda: None, barrier=True)


class Engine:
    """Owns the aggregation thread. `close` ends it; until then every future it gave out completes."""

    def __init__(self, threads: int, kernels: Sequence[Kernels] = ()) -> None:
        """`kernels`: what the rule needs beside those that every rule needs."""
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._rule: Rule | None = None
        self._base: Buffer | None = None
        self._waiting: list[_Fold] = []
        self._patience = 0.0
        self.seconds = 0.0
        """Time spent folding and finishing since the round began."""
        self._thread = threading.Thread(target=self._run, name="aggregation", daemon=True)
        self._thread.start()
        self._ready = self._submit(lambda: runtime.configure(threads, kernels))

    def ready(self) -> asyncio.Future[None]:
        """Done once the kernels are compiled; RuntimeError when they cannot run here."""
        return asyncio.wrap_future(self._ready)

    def begin(self, rule: Rule, base: Buffer | None = None) -> asyncio.Future[None]:
        """Start a round. `base`: what its updates are made from."""

        def start() -> None:
            self._rule, self._base, self.seconds = rule, base, 0.0
            rule.reset()

        return asyncio.wrap_future(self._submit(start, barrier=True))

    def fold(self, upload: Staged) -> asyncio.Future[None]:
        """Add one verified upload, encoded as the rule expects; done when its memory may be reused."""
        item = _Fold(upload)
        self._queue.put(item)
        return asyncio.wrap_future(item.done)

    def finish(self, last: Sequence[Staged] = ()) -> asyncio.Future[Buffer]:
        """The new global model, after all folds queued before and the `last` uploads; ValueError when there is none,
        for want of uploads or because it would not be finite."""
        item = _Finish(last)
        self._queue.put(item)
        return asyncio.wrap_future(item.done)

    def flaw(self, encoding: Encoding, content: Buffer) -> asyncio.Future[str | None]:
        """Why an upload cannot be used, such as a tensor that holds NaN; None when all is well."""
        return asyncio.wrap_future(self._submit(lambda: flaws.flaw(encoding, content)))

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Anything else that uses kernels; it does not wait for folds."""
        return asyncio.wrap_future(self._submit(call))

    def close(self) -> None:
        """End the thread after what is queued."""
        self._queue.put(_CLOSE)
        self._thread.join()

    def _submit(self, call: Callable[[], T], *, barrier: bool = False) -> Future[T]:
        future: Future[T] = Future()
        self._queue.put(_Call(lambda: _complete(future, call), barrier))
        return future

    def _run(self) -> None:
        while self._take_one():
            pass
        self._fold_waiting()

    def _take_one(self) -> bool:
        """One item of the queue, or a pass over those that have waited; false at the end. Returning lets go of models
        that the item refers to."""
        match self._next():
            case None:
                self._fold_waiting()
            case _Fold() as item:
                self._waiting.append(item)
                if self._rule is None or len(self._waiting) >= self._rule.models_per_pass:
                    self._fold_waiting()
            case _Finish(last, done):
                self._finish(last, done)
            case item if item is _CLOSE:
                return False
            case _Call(run, barrier):
                if barrier:
                    self._fold_waiting()
                run()
        return True

    def _next(self) -> _Item | None:
        """What is queued, or None when waiting folds have waited long enough."""
        try:
            return self._queue.get(timeout=self._patience if self._waiting else None)
        except queue.Empty:
            return None

    def _take_waiting(self) -> list[_Fold]:
        taken, self._waiting = self._waiting, []
        return [item for item in taken if item.done.set_running_or_notify_cancel()]

    def _fold_waiting(self) -> None:
        batch = self._take_waiting()
        if not batch:
            return
        started = time.perf_counter()
        try:
            assert self._rule is not None, "fold without begin"
            self._rule.fold([item.upload for item in batch], self._base)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits the futures
            for item in batch:
                item.done.set_exception(error)
        else:
            for item in batch:
                item.done.set_result(None)
        took = time.perf_counter() - started
        self.seconds += took
        self._patience = min(took, MAX_PATIENCE_SECONDS)

    def _finish(self, last: Sequence[Staged], done: Future[Buffer]) -> None:
        if not done.set_running_or_notify_cancel():
            return
        waiting, base = self._take_waiting(), self._base
        self._base = None

        def end() -> Buffer:
            assert self._rule is not None, "finish without begin"
            return self._rule.finish(base, [*(item.upload for item in waiting), *last])

        started = time.perf_counter()
        _settle(done, end)
        # What is wrong is wrong with the round, and not with the uploads that came last.
        for item in waiting:
            item.done.set_result(None)
        self.seconds += time.perf_counter() - started


def _complete(future: Future[T], call: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        _settle(future, call)


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits the future
        future.set_exception(error)
    else:
        future.set_result(result)

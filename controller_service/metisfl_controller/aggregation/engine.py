"""The one thread that runs kernels: it folds verified uploads while others still arrive.

Work is queued in the order of the calls, all made from the event loop, and each call returns a future of that loop.
Work whose future is cancelled before its turn is skipped.
Folds that wait in the queue are taken together, so that several models share one pass over the accumulator.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from metisfl.wire.layout import Buffer, Layout
from metisfl_controller.aggregation import kernels

T = TypeVar("T")


class Rule(Protocol):
    """What the engine asks of an aggregation rule."""

    def reset(self) -> None: ...
    def fold(self, models: list[Buffer], weights: list[float]) -> None: ...
    def finish(self) -> Buffer: ...


@dataclass
class _Fold:
    model: Buffer
    weight: float
    done: Future[None] = field(default_factory=Future)


@dataclass
class _Call:
    """Anything that must see all folds queued before it, and none after."""

    run: Callable[[], None]


_Item = _Fold | _Call
_CLOSE = _Call(lambda: None)


class Engine:
    """Owns the aggregation thread. `close` ends it; until then every future it gave out completes."""

    def __init__(self, threads: int) -> None:
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._rule: Rule | None = None
        self.seconds = 0.0
        """Time spent folding and finishing since the round began."""
        self._thread = threading.Thread(target=self._run, name="aggregation", daemon=True)
        self._thread.start()
        self._ready = self._submit(lambda: kernels.configure(threads))

    def ready(self) -> asyncio.Future[None]:
        """Done once the kernels are compiled; RuntimeError when they cannot run here."""
        return asyncio.wrap_future(self._ready)

    def begin(self, rule: Rule) -> asyncio.Future[None]:
        """Start a round with an empty accumulator."""

        def start() -> None:
            self._rule, self.seconds = rule, 0.0
            rule.reset()

        return asyncio.wrap_future(self._submit(start))

    def fold(self, model: Buffer, weight: float) -> asyncio.Future[None]:
        """Add one verified model; done when its buffer may be reused."""
        item = _Fold(model, weight)
        self._queue.put(item)
        return asyncio.wrap_future(item.done)

    def finish(self) -> asyncio.Future[Buffer]:
        """The new global model, after all folds queued before; ValueError when nothing was folded."""

        def end() -> Buffer:
            assert self._rule is not None, "finish without begin"
            started = time.perf_counter()
            try:
                return self._rule.finish()
            finally:
                self.seconds += time.perf_counter() - started

        return asyncio.wrap_future(self._submit(end))

    def not_finite(self, layout: Layout, model: Buffer) -> asyncio.Future[str | None]:
        """The name of a tensor that holds NaN or infinity, or None when all values are finite."""
        return asyncio.wrap_future(self._submit(lambda: _first_not_finite(layout, model)))

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Other work that uses kernels, after what was queued before."""
        return asyncio.wrap_future(self._submit(call))

    def close(self) -> None:
        """End the thread after what is queued."""
        self._queue.put(_CLOSE)
        self._thread.join()

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits the future
                future.set_exception(error)
            else:
                future.set_result(result)

        self._queue.put(_Call(run))
        return future

    def _run(self) -> None:
        following: _Item | None = None
        while (item := following or self._queue.get()) is not _CLOSE:
            following = None
            if isinstance(item, _Call):
                item.run()
                continue
            batch = [item]
            while len(batch) < kernels.FUSED and isinstance(following := self._get_if_any(), _Fold):
                batch.append(following)
                following = None
            self._fold(batch)

    def _get_if_any(self) -> _Item | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _fold(self, queued: list[_Fold]) -> None:
        batch = [item for item in queued if item.done.set_running_or_notify_cancel()]
        if not batch:
            return
        started = time.perf_counter()
        try:
            assert self._rule is not None, "fold without begin"
            self._rule.fold([item.model for item in batch], [item.weight for item in batch])
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits the futures
            for item in batch:
                item.done.set_exception(error)
        else:
            for item in batch:
                item.done.set_result(None)
        finally:
            self.seconds += time.perf_counter() - started


def _first_not_finite(layout: Layout, model: Buffer) -> str | None:
    if not any(kernels.count_not_finite(segment.of(model)) for segment in layout.segments):
        return None
    for name, tensor in layout.views(model).items():
        if np.issubdtype(tensor.dtype, np.floating) and not np.isfinite(tensor).all():
            return name
    return None

"""The operator's parts, put together once at start-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from metisfl_operator.kube import KubeClient
from metisfl_operator.metrics import OperatorMetrics
from metisfl_operator.pokes import Key, Pokes
from metisfl_operator.progress import HttpProgress
from metisfl_operator.reconcile.reconciler import Reconciler
from metisfl_operator.resync import Resync, Seen
from metisfl_operator.settings import Settings


@dataclass
class Runtime:
    """What handlers use: `pokes` for a look at one federation, `resync` for looks at all of them."""

    pokes: Pokes
    resync: Resync
    metrics: OperatorMetrics
    metrics_port: int
    _server: tuple[WSGIServer, Thread] | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    @classmethod
    def create(cls, settings: Settings, index: Callable[[], Mapping[Key, Seen]]) -> Runtime:
        kube = KubeClient.connect()
        metrics = OperatorMetrics(CollectorRegistry())
        reconciler = Reconciler(kube, HttpProgress.create(), settings)

        async def look(key: Key) -> None:
            # The client is synchronous; each of its calls has a deadline, so the thread comes back.
            with metrics.reconciling():
                await asyncio.to_thread(reconciler.reconcile, *key)

        pokes = Pokes(look)
        resync = Resync(index, pokes.poke, kube, settings.namespaces)
        metrics.follow(index, resync.lag_seconds)
        return cls(pokes, resync, metrics, settings.metrics_port)

    def start(self) -> None:
        if self.metrics_port:
            self._server = start_http_server(self.metrics_port, registry=self.metrics.registry)
        self._task = asyncio.create_task(self.resync.run(), name="resync")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._server is not None:
            await asyncio.to_thread(self._server[0].shutdown)
        await self.pokes.close()

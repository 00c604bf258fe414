"""What Prometheus scrapes of the operator. One registry, passed in; no global state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from metisfl_operator.pokes import Key
from metisfl_operator.reconcile.reconciler import InvalidFederationError
from metisfl_operator.resync import STATES, Seen

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class OperatorMetrics:
    """How much the operator does, how long it takes, and whether it still hears of changes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._reconciles = Counter(
            "metisfl_operator_reconciles",
            "Looks at a federation by result: success, invalid (its spec), error (tried again)",
            ("result",),
            registry=registry,
        )
        for result in ("success", "invalid", "error"):
            self._reconciles.labels(result)
        self._seconds = Histogram(
            "metisfl_operator_reconcile_seconds", "One look at a federation", registry=registry, buckets=_SECONDS
        )
        self._federations = Gauge("metisfl_operator_federations", "Federations by state", ("state",), registry=registry)
        self._lag = Gauge(
            "metisfl_operator_watch_lag_seconds",
            "For how long the watch has been behind the API server; 0 when it is not",
            registry=registry,
        )

    @contextmanager
    def reconciling(self, monotonic: Callable[[], float] = time.monotonic) -> Iterator[None]:
        """Counts and times what is done within; exceptions pass."""
        began, result = monotonic(), "success"
        try:
            yield
        except InvalidFederationError:
            result = "invalid"
            raise
        except Exception:
            result = "error"
            raise
        finally:
            self._reconciles.labels(result).inc()
            self._seconds.observe(monotonic() - began)

    def follow(self, index: Callable[[], Mapping[Key, Seen]], lag_seconds: Callable[[], float]) -> None:
        """Figures that are asked for when they are scraped."""
        self._lag.set_function(lag_seconds)

        def count(state: str) -> float:
            return sum(entry.state == state for entry in index().values())

        for state in STATES:
            self._federations.labels(state).set_function(partial(count, state))

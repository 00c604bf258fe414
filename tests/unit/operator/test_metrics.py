"""What the operator tells Prometheus of itself."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from metisfl_operator.metrics import OperatorMetrics
from metisfl_operator.reconcile.reconciler import InvalidFederationError
from metisfl_operator.resync import Seen


@pytest.fixture
def metrics() -> OperatorMetrics:
    return OperatorMetrics(CollectorRegistry())


def value(metrics: OperatorMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("error", "result"), [(None, "success"), (InvalidFederationError("x"), "invalid"), (RuntimeError("x"), "error")]
)
def test_looks_are_counted_by_result_and_timed(metrics: OperatorMetrics, error: Exception | None, result: str) -> None:
    clock = iter((10.0, 10.2))

    def look() -> None:
        with metrics.reconciling(lambda: next(clock)):
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            look()
    else:
        look()
    counts = {
        each: value(metrics, "metisfl_operator_reconciles_total", result=each)
        for each in ("success", "invalid", "error")
    }
    assert counts == {**dict.fromkeys(counts, 0), result: 1}
    assert value(metrics, "metisfl_operator_reconcile_seconds_sum") == pytest.approx(0.2)


def test_federations_and_the_watch_are_looked_up_when_scraped(metrics: OperatorMetrics) -> None:
    index = {("ns", "a"): Seen(1, quiet=False, state="progressing"), ("ns", "b"): Seen(1, quiet=True, state="failed")}
    lag = [0.0]
    metrics.follow(lambda: index, lambda: lag[0])
    assert value(metrics, "metisfl_operator_federations", state="failed") == 1
    del index["ns", "b"]
    lag[0] = 7.0
    assert value(metrics, "metisfl_operator_federations", state="failed") == 0
    assert value(metrics, "metisfl_operator_federations", state="progressing") == 1
    assert value(metrics, "metisfl_operator_watch_lag_seconds") == 7.0

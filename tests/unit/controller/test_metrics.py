"""What learners choose does not decide how much Prometheus keeps."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from metisfl.logs import logger
from metisfl_controller.metrics import MAX_METRIC_SERIES, ControllerMetrics


def test_names_of_model_metrics_are_bounded_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    metrics = ControllerMetrics(registry, "demo", logger("test"))
    for number in range(MAX_METRIC_SERIES + 5):
        metrics.model_metric(f"m{number}", 1.0, "Learners")
    metrics.model_metric("m0", 2.0, "Learners")
    metrics.model_metric("accuracy", 3.0, "Evaluators")
    lines = generate_latest(registry).decode().splitlines()
    shown = [line for line in lines if line.startswith("metisfl_model_metric{")]
    assert len(shown) == MAX_METRIC_SERIES + 1
    assert 'metisfl_model_metric{federation="demo",metric="m0",source="Learners"} 2.0' in shown
    assert 'metisfl_model_metric{federation="demo",metric="accuracy",source="Evaluators"} 3.0' in shown
    (record,) = caplog.records
    assert f"'m{MAX_METRIC_SERIES}' and others" in record.getMessage()

"""docs/metrics.md says of every metric what the code does, and of none that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import Mock

from prometheus_client import CollectorRegistry

from metisfl.logs import logger
from metisfl_controller.metrics import ControllerMetrics
from metisfl_operator.metrics import OperatorMetrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>metisfl_\w+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\|", re.MULTILINE)

Described = dict[str, tuple[str, frozenset[str]]]


def on_the_page() -> Described:
    rows = list(ROW.finditer(PAGE.read_text(encoding="utf-8")))
    found = {row["name"]: (row["type"], frozenset(re.findall(r"`(\w+)`", row["labels"]))) for row in rows}
    assert len(found) == len(rows), "a metric is described twice"
    return found


def in_the_code(registry: CollectorRegistry) -> Described:
    """Names as they are scraped, types, and labels but for `federation` and a histogram's own."""
    found: Described = {}
    for metric in registry.collect():
        if metric.type == "unknown":
            continue
        samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
        assert samples, f"{metric.name} has no sample: use it below"
        labels = frozenset(samples[0].labels) - {"federation", "le"}
        found[f"{metric.name}_total" if metric.type == "counter" else metric.name] = (metric.type, labels)
    return found


def test_every_metric_is_described_as_it_is() -> None:
    controller = ControllerMetrics(CollectorRegistry(), "test", logger("test"))
    controller.learners("ready", 1)
    controller.evaluators("working", 1)
    controller.upload("accepted")
    controller.upload_to_output("delivered")
    controller.model_metric("accuracy", 0.5, "Learners")
    operator = OperatorMetrics(CollectorRegistry())
    operator.follow(Mock(return_value={}), lambda: 0.0)
    assert on_the_page() == in_the_code(controller.registry) | in_the_code(operator.registry)

"""Monitors, alerts and dashboards: they ask for metrics that exist, of pods that exist."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from metisfl.logs import logger
from metisfl_controller.metrics import ControllerMetrics
from metisfl_operator.metrics import OperatorMetrics

Render = Callable[..., list[dict[str, Any]]]

ROOT = Path(__file__).parents[2]
DASHBOARDS: dict[str, str] = runpy.run_path(str(ROOT / "hack" / "dashboards"))["dashboards"]()
EVERYTHING = {"metrics": {"monitor": {"enabled": True}}, "rules": {"enabled": True}, "dashboards": {"enabled": True}}


def exported() -> set[str]:
    """The names of all series that controller and operator can have."""
    registry = CollectorRegistry()
    ControllerMetrics(registry, "f", logger("test"))
    OperatorMetrics(registry)
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {f"{metric.name}{suffix}" for metric in registry.collect() for suffix in suffixes[metric.type]}


def queries(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            else:
                yield from queries(value)
    elif isinstance(node, list):
        for child in node:
            yield from queries(child)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_are_the_generated_ones(name: str) -> None:
    path = ROOT / "charts" / "metisfl" / "files" / "dashboards" / name
    assert path.read_text() == DASHBOARDS[name], "stale: run hack/dashboards"


def test_every_query_is_about_a_metric_that_exists(render: Render) -> None:
    objects = render(**EVERYTHING)
    (rules,) = [m["spec"] for m in objects if m["kind"] == "PrometheusRule"]
    asked = [query for text in DASHBOARDS.values() for query in queries(json.loads(text))] + list(queries(rules))
    names = {name for query in asked for name in re.findall(r"metisfl_[a-z_]+", query)}
    assert names
    assert names - exported() == set()


def test_panels_do_not_overlap_and_fit() -> None:
    for text in DASHBOARDS.values():
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(text)["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            taken |= cells


def test_every_alert_says_what_it_means(render: Render) -> None:
    (rules,) = [m["spec"] for m in render(**EVERYTHING) if m["kind"] == "PrometheusRule"]
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts) >= 6
    for alert in alerts:
        assert alert["annotations"].keys() == {"summary", "description"}
        assert alert["labels"]["severity"] in ("info", "warning")


@pytest.mark.parametrize(
    ("kind", "endpoints"), [("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")]
)
def test_monitors_find_the_operator_and_the_controllers(render: Render, kind: str, endpoints: str) -> None:
    objects = render(metrics={"monitor": {"enabled": True, "kind": kind, "labels": {"release": "x"}}})
    operator, controllers = (m for m in objects if m["kind"] == kind)
    assert {m["metadata"]["labels"]["release"] for m in (operator, controllers)} == {"x"}
    (deployment,) = [m for m in objects if m["kind"] == "Deployment"]
    services = [m for m in objects if m["kind"] == "Service"]
    found = services[0] if kind == "ServiceMonitor" else deployment["spec"]["template"]
    assert operator["spec"]["selector"]["matchLabels"].items() <= found["metadata"]["labels"].items()
    assert operator["spec"][endpoints][0]["port"] == "metrics"
    assert controllers["spec"]["namespaceSelector"] == {"any": True}
    assert controllers["spec"][endpoints][0]["port"] == "http"


def test_monitors_look_where_the_operator_works(render: Render) -> None:
    objects = render(namespaces=["team-a"], **EVERYTHING)
    (controllers,) = [m for m in objects if m["metadata"]["name"] == "metisfl-controllers"]
    assert controllers["spec"]["namespaceSelector"] == {"matchNames": ["team-a"]}


def test_dashboards_are_what_grafanas_sidecar_looks_for(render: Render) -> None:
    maps = [m for m in render(**EVERYTHING) if m["kind"] == "ConfigMap"]
    assert {name: text for m in maps for name, text in m["data"].items()} == DASHBOARDS
    assert all(m["metadata"]["labels"]["grafana_dashboard"] == "1" for m in maps)


def test_nothing_of_it_is_there_unless_asked_for(render: Render) -> None:
    kinds = {manifest["kind"] for manifest in render()}
    assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ConfigMap", "Service"}

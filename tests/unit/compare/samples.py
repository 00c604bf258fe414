"""Results as the comparison writes them, with made-up figures."""

from __future__ import annotations

from typing import Any

from benchmarks.compare.results import Results

MACHINE = {"cpu": "Some CPU", "cores": 2, "memory_gib": 8.0, "kernel": "6.1", "python": "3.11.7"}
VERSIONS: dict[str, dict[str, str | None]] = {
    "metisfl": {"metisfl-operator": "0.1.0", "numpy": "2.4.6"},
    "flower": {"flwr": "1.42.0", "numpy": "2.4.6"},
    "nvflare": {"nvflare": "2.9.0", "grpcio": None},
}


def aggregations() -> Results:
    results = _empty("compare-aggregate")
    for layout in ("uniform16", "housing"):
        for system, path, seconds in (
            ("metisfl", "FedAvg kernel", 0.025),
            ("flower", "aggregate", 0.125),
            ("nvflare", "WeightedAggregationHelper", 0.1),
        ):
            errors = {"max_abs_error": seconds * 2e-8, "max_rel_error": seconds * 4e-6}
            results.results.append(_entry(system, "", layout, seconds) | {"path": path, **errors})
    return results


def rounds() -> Results:
    """Flower was not done in time."""
    results = _empty("compare-round")
    results.results.append(_entry("metisfl", "one process with all learners", "uniform16", 0.25))
    results.results.append(_entry("nvflare", "simulator", "uniform16", 3.0))
    skipped = _entry("flower", "SuperLink", "uniform16", 0.0)
    for name in ("seconds_min", "seconds_median", "seconds", "repetitions"):
        del skipped[name]
    results.skipped.append(skipped | {"reason": "only 1 rounds were done within 300 s, start included"})
    return results


def _empty(benchmark: str) -> Results:
    return Results(benchmark, "python -m benchmarks.compare", MACHINE, VERSIONS, "2026-01-31")


def _entry(system: str, setup: str, layout: str, seconds: float) -> dict[str, Any]:
    return {
        "system": system,
        "setup": setup,
        "learners": 25,
        "parameters": 1_000_000,
        "layout": layout,
        "model_bytes": 4_000_000,
        "repetitions": 3,
        "seconds_min": seconds * 0.8,
        "seconds_median": seconds,
        "seconds": [seconds * 0.8, seconds, seconds * 1.2],
    }

"""What the engine is meant to reach, and whether the results do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import earlier, words
from benchmarks.suite import plan
from benchmarks.suite.records import figures_of, read
from metisfl_bench.layouts import LAYOUTS

SLOTS = 4
"""Of staging, by default."""

Spoken = Callable[[float], str]


@dataclass(frozen=True)
class Target:
    """`reached` is None where it was not measured."""

    what: str
    aim: str
    measured: str
    reached: bool | None

    def row(self) -> list[str]:
        return [self.what, self.aim, self.measured, {True: "yes", False: "**no**", None: "not measured"}[self.reached]]


def table(results: Path) -> str:
    return words.table(["What", "Target", "Measured", "Reached"], [each.row() for each in targets(results)])


def targets(results: Path) -> list[Target]:
    return [*_aggregation(results), *_rounds(results), *_large(results), *_codecs(results), *_fanin(results)]


def at_least(what: str, figure: float | None, limit: float, spoken: Spoken) -> Target:
    return Target(what, f"≥ {spoken(limit)}", _spoken(figure, spoken), None if figure is None else figure >= limit)


def at_most(what: str, figure: float | None, limit: float, spoken: Spoken) -> Target:
    return Target(what, f"≤ {spoken(limit)}", _spoken(figure, spoken), None if figure is None else figure <= limit)


def _aggregation(results: Path) -> Iterator[Target]:
    for learners, size, _ in plan.AGGREGATIONS:
        found = [figures_of(results, plan.aggregate_name(learners, size, layout)) for layout in LAYOUTS]
        complete = all(found)
        fraction = min(each["fraction_of_bandwidth"] for each in found) if complete else None
        error = max(each["max_abs_error"] for each in found) if complete else None
        what = f"aggregate {learners} × {size}, worst layout"
        yield at_least(f"{what}: of read bandwidth", fraction, 0.9 if size == "10M" else 0.8, words.percent)
        yield at_most(f"{what}: largest error", error, 2e-7, lambda value: f"{value:.1e}")


def _rounds(results: Path) -> Iterator[Target]:
    for learners, size in ((25, "1M"), (50, "1M"), (10, "10M"), (25, "10M")):
        result = figures_of(results, plan.round_name(learners, size))
        what = f"round {learners} × {size}"
        half = earlier.ROUND_SECONDS[learners, size] / 2
        yield at_most(f"{what}: half of MetisFL C++", result.get("round_seconds_median"), half, words.seconds)
        yield at_least(f"{what}: of a bare stream", result.get("fraction_of_stream"), 0.7, words.percent)


def _large(results: Path) -> Iterator[Target]:
    peak = figures_of(results, plan.large_name("50x10M")).get("controller_peak_rss_mb")
    models = (SLOTS + 5) * 40
    yield at_most("round 50 × 10M: peak memory", peak, models + 300, lambda value: f"{value:,.0f} MB")
    for which, (learners, size, _, options) in plan.LARGE.items():
        if "--memory-limit" in options:
            record = read(results, plan.large_name(which))
            reached = None if record is None else record.result is not None
            limit = options[options.index("--memory-limit") + 1]
            measured = {True: "does", False: "does not", None: words.MISSING}[reached]
            yield Target(f"round {learners} × {size} in a memory cgroup of {limit}", "completes", measured, reached)


def _codecs(results: Path) -> Iterator[Target]:
    figures = figures_of(results, "codecs").get("codecs", {})
    plain = figures.get("Float32", {}).get("shaped_round_seconds_median")
    for codec, limit in (("BFloat16", 0.55), ("Int8", 0.30)):
        figure = figures.get(codec, {})
        share = figure.get("upload_bytes_of_float32")
        yield at_most(f"{codec}: bytes of an upload, of Float32's", share, limit, lambda value: f"{value:.2f}")
        shaped = figure.get("shaped_round_seconds_median")
        fraction = shaped / plain if shaped and plain else None
        yield at_most(f"{codec}: a round at 1 Gbit/s, of Float32's", fraction, 1.0, words.percent)


def _fanin(results: Path) -> Iterator[Target]:
    result = figures_of(results, "fanin")
    idle, after = result.get("bytes_per_connection_idle"), result.get("bytes_per_connection_after_round")
    yield at_most("fan-in: memory of an idle connection", idle, 64 * 1024, words.kib)
    yield at_most("fan-in: memory of a connection after a round", after, 200 * 1024, words.kib)
    yield at_least("fan-in: a round, of bare calls", result.get("fraction_of_bare"), 0.5, words.percent)


def _spoken(figure: float | None, spoken: Spoken) -> str:
    return words.MISSING if figure is None else spoken(figure)

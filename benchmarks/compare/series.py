"""Results as tables and plots want them: sizes in one direction, who did it and how in the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.compare.plan import SYSTEMS
from benchmarks.compare.results import Results
from benchmarks.compare.work import size_name


@dataclass(frozen=True)
class Size:
    learners: int
    parameters: int
    layout: str

    @property
    def name(self) -> str:
        return size_name(self.learners, self.parameters)


@dataclass
class Series:
    """All results of one system by one path through it, or in one set-up."""

    system: str
    how: str
    results: dict[Size, dict[str, Any]] = field(default_factory=dict)
    reasons: dict[Size, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        return f"{SYSTEMS[self.system]}: {self.how}" if self.how else SYSTEMS[self.system]

    def at(self, size: Size) -> dict[str, Any] | None:
        return self.results.get(size)

    def reason(self, size: Size) -> str | None:
        """Why there is no result of this size."""
        return self.reasons.get(size)


def series_of(results: Results) -> list[Series]:
    """In the order in which systems are compared, and within one as it was measured."""
    found: dict[tuple[str, str], Series] = {}
    for result in results.results:
        how = result.get("path") or result["setup"]
        series = found.setdefault((result["system"], how), Series(result["system"], how))
        series.results[_size(result)] = result
    for skipped in results.skipped:
        _skip(found, skipped)
    order = list(SYSTEMS)
    return sorted(found.values(), key=lambda series: order.index(series.system))


def sizes_of(results: Results) -> list[Size]:
    return list(dict.fromkeys(_size(result) for result in [*results.results, *results.skipped]))


def spoken(seconds: float) -> str:
    """A duration with three digits and a unit that fits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _skip(found: dict[tuple[str, str], Series], skipped: dict[str, Any]) -> None:
    """Where a system is skipped before its paths are known, that goes for all of them."""
    same = [s for (system, how), s in found.items() if system == skipped["system"] and skipped["setup"] in ("", how)]
    if not same:
        key = (skipped["system"], skipped["setup"])
        same = [found.setdefault(key, Series(*key))]
    for series in same:
        series.reasons[_size(skipped)] = skipped["reason"]


def _size(result: dict[str, Any]) -> Size:
    return Size(result["learners"], result["parameters"], result["layout"])

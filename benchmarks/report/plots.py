"""The plots, as SVG and PNG; the same results give the same SVG. What was not measured is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.report import earlier, words
from benchmarks.suite import plan
from benchmarks.suite.records import figures_of
from metisfl_bench.layouts import LAYOUTS

_STYLE = {"svg.hashsalt": "metisfl", "svg.fonttype": "none", "font.size": 10, "axes.axisbelow": True}
_BLUE, _LIGHT, _GREY = "#0b4f8a", "#5fa2dd", "#9a9a9a"
_WIDTH = 0.8
"""Of a group of bars; groups are 1 apart."""


@dataclass(frozen=True)
class Bars:
    """One bar in each group; None leaves its place empty."""

    label: str
    colour: str
    values: Sequence[float | None]


def aggregate(results: Path, images: Path) -> str | None:
    """How much of the read bandwidth is used. Returns the SVG's name, or None without results."""
    groups, kernels, engines = [], [], []
    for learners, size, _ in plan.AGGREGATIONS:
        for layout in LAYOUTS:
            result = figures_of(results, plan.aggregate_name(learners, size, layout))
            groups.append(f"{learners} × {size}\n{layout}")
            kernels.append(_percent(result.get("fraction_of_bandwidth")))
            engines.append(_percent(result.get("engine_fraction")))
    series = [Bars("all models at once", _BLUE, kernels), Bars("through staging and the engine", _LIGHT, engines)]
    return _draw(images, "bench-aggregate", "% of read bandwidth", groups, series, lambda value: f"{value:.0f}")


def rounds(results: Path, images: Path) -> str | None:
    """Beside MetisFL's C++ controller."""
    groups = [f"{learners} × {size}" for learners, size, _ in plan.ROUNDS]
    ours = [
        figures_of(results, plan.round_name(learners, size)).get("round_seconds_median")
        for learners, size, _ in plan.ROUNDS
    ]
    if not any(ours):
        return None
    cpp = [earlier.ROUND_SECONDS[learners, size] for learners, size, _ in plan.ROUNDS]
    series = [Bars("this controller", _BLUE, ours), Bars("MetisFL C++, measured earlier", _GREY, cpp)]
    return _draw(images, "bench-round", "a round (log)", groups, series, words.seconds, logarithmic=True)


def codecs(results: Path, images: Path) -> str | None:
    """Rounds over both links."""
    result = figures_of(results, "codecs")
    figures = result.get("codecs", {})
    series = [
        Bars("loopback", _LIGHT, [each.get("round_seconds_median") for each in figures.values()]),
        Bars(
            f"link of {result.get('shaped')}",
            _BLUE,
            [each.get("shaped_round_seconds_median") for each in figures.values()],
        ),
    ]
    return _draw(images, "bench-codecs", "a round (log)", list(figures), series, words.seconds, logarithmic=True)


def _draw(
    images: Path,
    name: str,
    what: str,
    groups: Sequence[str],
    series: Sequence[Bars],
    spoken: Callable[[float], str],
    *,
    logarithmic: bool = False,
) -> str | None:
    drawn = [bars for bars in series if any(value is not None for value in bars.values)]
    if not drawn:
        return None
    width = _WIDTH / len(drawn)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        axis = figure.subplots()
        for number, bars in enumerate(drawn):
            shift = (number - (len(drawn) - 1) / 2) * width
            shown = [(place, value) for place, value in enumerate(bars.values) if value is not None]
            heights = [value for _, value in shown]
            rectangles = axis.bar(
                [place + shift for place, _ in shown], heights, width * 0.94, color=bars.colour, label=bars.label
            )
            axis.bar_label(rectangles, [spoken(value) for value in heights], fontsize=7.5, padding=2)
        if logarithmic:
            axis.set_yscale("log")
            axis.margins(y=0.14)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: spoken(value)))
            axis.yaxis.set_minor_formatter(NullFormatter())
        else:
            axis.set_ylim(0, 105)  # Per cent.
        axis.set_xticks(range(len(groups)), groups)
        axis.set_ylabel(what)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=len(drawn), frameon=False)
        images.mkdir(parents=True, exist_ok=True)
        figure.savefig(images / f"{name}.svg", metadata={"Date": None})
        figure.savefig(images / f"{name}.png", dpi=130)
    return f"{name}.svg"


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction

"""Grouped bars on a logarithmic scale, as PNG and SVG; the same results give the same SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.compare.results import Results
from benchmarks.compare.series import Series, Size, series_of, sizes_of, spoken

# Dark to light within a system; distinct in grey too.
_COLOURS = {
    "metisfl": ["#0b4f8a", "#5fa2dd"],
    "flower": ["#b3510a", "#ee8f3c", "#f9cf9f"],
    "nvflare": ["#33691e", "#a4cf7c"],
}
_STYLE = {"svg.hashsalt": "compare", "svg.fonttype": "none", "font.size": 10, "axes.axisbelow": True}
_WIDTH = 0.84
"""Of a group of bars; groups are 1 apart."""


def aggregation(results: Results, folder: Path) -> Path:
    """One panel a layout. Returns the SVG; a PNG lies beside it."""
    sizes = sizes_of(results)
    layouts = list(dict.fromkeys(size.layout for size in sizes))
    panels = [(layout, [size for size in sizes if size.layout == layout]) for layout in layouts]
    return _draw(results, panels, "time to aggregate", "models × parameters", folder / "compare-aggregate.svg")


def rounds(results: Results, folder: Path) -> Path:
    """One panel. Returns the SVG; a PNG lies beside it."""
    return _draw(
        results, [("", sizes_of(results))], "time a round", "learners × parameters", folder / "compare-round.svg"
    )


def _draw(results: Results, panels: Sequence[tuple[str, list[Size]]], what: str, sizes: str, path: Path) -> Path:
    series = series_of(results)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 1.2 + 3.1 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=False, sharey=True, squeeze=False)[:, 0]
        for axis, (title, shown) in zip(axes, panels, strict=True):
            for number, each in enumerate(series):
                _bars(axis, each, number, len(series), shown, _colour(series, each))
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axis.yaxis.set_major_formatter(lambda seconds, _: spoken(seconds))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.margins(y=0.14)
            axis.set_xticks(range(len(shown)), [size.name for size in shown])
            axis.set_title(title, loc="left", fontweight="bold")
            axis.set_ylabel(f"{what} (log)")
            axis.grid(axis="y", color="#dddddd", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1].set_xlabel(sizes)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=130)
    return path


def _bars(axis: Any, series: Series, number: int, count: int, sizes: Sequence[Size], colour: str) -> None:
    width = _WIDTH / count
    shift = (number - (count - 1) / 2) * width
    measured = [(place, result) for place, size in enumerate(sizes) if (result := series.at(size))]
    bars = axis.bar(
        [place + shift for place, _ in measured],
        [result["seconds_median"] for _, result in measured],
        width * 0.94,
        color=colour,
        label=series.words,
    )
    axis.bar_label(bars, [spoken(result["seconds_median"]) for _, result in measured], fontsize=7, padding=2)


def _colour(all_series: Sequence[Series], series: Series) -> str:
    same = [each for each in all_series if each.system == series.system]
    colours = _COLOURS[series.system]
    return colours[same.index(series) % len(colours)]

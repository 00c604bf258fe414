"""Curves and bars as SVG that takes its colours from the page, so that one drawing serves light and dark."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metisfl.local.report.series import Bars, Curves

# Drawn in these, and then replaced by the variables of the page's style sheet.
_INK, _RULE = "#010101", "#020202"
_SERIES = ("#030303", "#040404", "#050505", "#060606", "#070707", "#080808")
_VARIABLES = {_INK: "--ink-soft", _RULE: "--rule"} | {c: f"--series-{n}" for n, c in enumerate(_SERIES, start=1)}

# Inches at 72 units each: one unit is about one CSS pixel on a phone.
_SIZE = (5.3, 3.0)
_WIDE_SIZE = (11.0, 3.0)
_MARKERS_UP_TO = 40
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2.0,
    "lines.markersize": 4.5,
    "legend.frameon": False,
}


def metric_chart(curves: Curves, target: float | None) -> str:
    """One metric over model versions: on training and held-out examples, by evaluators, and its target, dashed."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        if curves.held_out:
            _curve(axes, curves.held_out.x, curves.held_out.y, _SERIES[0], "held-out examples")
        if curves.training:
            _curve(axes, curves.training.x, curves.training.y, _SERIES[1], "training examples")
        if curves.evaluators:
            _curve(axes, curves.evaluators.x, curves.evaluators.y, _SERIES[2], "evaluators")
        if target is not None:
            axes.axhline(target, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)), label=f"target {target:g}")
        axes.set_xlabel("round")
        _legend(figure, axes)
        return _svg(figure, f"metric-{curves.name}")


def phase_chart(bars: Bars, wide: bool) -> str:
    """Seconds of each phase, stacked, one bar for each round or group of rounds; `wide`: for the whole page's width."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(_WIDE_SIZE if wide else _SIZE)
        bottom = [0.0] * len(bars.first_rounds)
        for index, (name, seconds) in enumerate(bars.phases.items()):
            axes.bar(
                bars.first_rounds,
                seconds,
                width=0.72 * bars.rounds_each,
                align="center" if bars.rounds_each == 1 else "edge",
                bottom=bottom,
                color=_SERIES[index % len(_SERIES)],
                label=name,
            )
            bottom = [low + more for low, more in zip(bottom, seconds, strict=True)]
        axes.set_xlabel("round" if bars.rounds_each == 1 else f"round (mean of each {bars.rounds_each})")
        axes.set_ylabel("seconds")
        _legend(figure, axes)
        return _svg(figure, f"phases-{wide}")


def _figure(size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, axes


def _curve(axes: Axes, x: tuple[int, ...], y: tuple[float, ...], colour: str, label: str) -> None:
    axes.plot(x, y, color=colour, label=label, marker="o" if len(x) <= _MARKERS_UP_TO else "")


def _legend(figure: Figure, axes: Axes) -> None:
    labels = axes.get_legend_handles_labels()[1]
    figure.legend(loc="outside upper left", ncols=len(labels), handlelength=1.2, columnspacing=1.4, borderaxespad=0.2)


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The page scales the drawing, names it, and holds several.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text

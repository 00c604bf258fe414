"""The whole page: the template with its tables, and the plots beside it."""

from __future__ import annotations

from pathlib import Path

import jinja2

from benchmarks.compare import report as comparison
from benchmarks.report import plots, tables, targets

TEMPLATE = Path(__file__).with_name("template.md.j2")


def write(results: Path, page: Path) -> None:
    """Write the page, and its plots into the folder `images` beside it."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(results, page.parent / "images"))


def render(results: Path, images: Path) -> str:
    """The page's text; plots are drawn into `images`."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(
        targets=targets.table(results),
        machines=tables.machines(results),
        commands=tables.commands(),
        aggregate=tables.aggregate(results),
        aggregate_plot=_image(plots.aggregate(results, images), images, "Share of read bandwidth used"),
        rounds=tables.rounds(results),
        rounds_plot=_image(plots.rounds(results, images), images, "Time of a round beside MetisFL's C++"),
        phases=tables.phases(results),
        variations=tables.variations(results),
        large=tables.large(results),
        codecs=tables.codecs(results),
        codecs_plot=_image(plots.codecs(results, images), images, "Time of a round with each codec"),
        fanin=tables.fanin(results),
        comparison=_comparison(results, images),
    )


def _image(name: str | None, images: Path, words: str) -> str:
    return f"![{words}]({images.name}/{name})" if name else ""


def _comparison(results: Path, images: Path) -> str:
    try:
        return comparison.section(results, images).strip()
    except FileNotFoundError:
        return "Not measured yet."

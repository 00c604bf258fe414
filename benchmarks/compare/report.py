"""The comparison in Markdown, from the files of results; the page of all benchmarks takes it in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import plots
from benchmarks.compare.plan import PARTS
from benchmarks.compare.results import Results, file_of
from benchmarks.compare.series import Series, Size, series_of, sizes_of, spoken


def section(results: Path, images: Path) -> str:
    """Tables and plots of whatever results are in the folder `results`. The plots are drawn into `images`, PNG and SVG,
    and named in the text relative to the folder that holds `images`. Raises FileNotFoundError when there are none."""
    files = {part: file_of(results, part) for part in PARTS}
    found = {part: Results.read(path) for part, path in files.items() if path.exists()}
    if not found:
        raise FileNotFoundError(f"no results of the comparison in {results}: run `python -m benchmarks.compare`")
    text = []
    if "aggregate" in found:
        text += [*_aggregation(found["aggregate"], plots.aggregation(found["aggregate"], images), images), ""]
    if "round" in found:
        text += [*_rounds(found["round"], plots.rounds(found["round"], images), images), ""]
    return "\n".join(text)


def _aggregation(results: Results, plot: Path, images: Path) -> list[str]:
    return [
        "### Aggregation alone",
        "",
        "The weighted mean of the same float32 arrays, in memory, by the code that each system runs in its server. "
        "Flower's `FedAvg.aggregate_train` and `aggregate_inplace` begin with the serialised replies that a server "
        "holds when it calls them; `aggregate` begins with arrays, as do all others. Flower and NVIDIA FLARE use one "
        "thread, by NumPy; this project's kernels use all cores. Median (minimum) of the repetitions, and how many "
        "times the first column's median that is.",
        "",
        *_image(plot, images, "Time to aggregate, by system, size and layout"),
        "",
        *_seconds_table(results, ("Models", "Layout"), lambda size: [size.name, size.layout]),
        "",
        "How far each result is from the mean computed in float64, largest over all sizes:",
        "",
        *_errors_table(results),
        "",
        *_about(results),
    ]


def _rounds(results: Results, plot: Path, images: Path) -> list[str]:
    return [
        "### Whole rounds",
        "",
        "From the start of one round to the start of the next, with learners that do no training: the model goes out "
        "to every learner, an update comes back from each, the mean becomes the next model. All processes run on this "
        "machine and talk over loopback without TLS; no system keeps the model on disk. Flower runs as deployed, and "
        "starts a process for every task of a learner; NVIDIA FLARE runs in its simulator, which has one server and a "
        "process for each client that stays, rather than in a deployment with TLS. Both wait by sleeping between "
        "looks; the set-ups with pauses cut to 0.1 s show what remains without most "
        "of that, but nobody ships them so. Median (minimum) of the rounds after the first, and how many times the "
        "first column's median that is.",
        "",
        *_image(plot, images, "Time a round takes, by system, set-up and size"),
        "",
        *_seconds_table(results, ("Learners × parameters",), lambda size: [size.name]),
        "",
        *_about(results),
    ]


def _seconds_table(results: Results, heads: Sequence[str], cells_of: Any) -> list[str]:
    """One row a size, one column a series; "× n" is how many times the first series' median it takes."""
    series = series_of(results)
    rows = [[*heads, *(each.words for each in series)]]
    for size in sizes_of(results):
        first = series[0].at(size)
        rows.append([*cells_of(size), *(_cell(each, size, first) for each in series)])
    return _table(rows)


def _cell(series: Series, size: Size, first: dict[str, Any] | None) -> str:
    result = series.at(size)
    if result is None:
        reason = series.reason(size)
        return f"— ({reason})" if reason else "—"
    median = result["seconds_median"]
    text = f"{spoken(median)} ({spoken(result['seconds_min'])})"
    if first is None or first is result:
        return text
    return f"{text} × {_ratio(median / first['seconds_median'])}"


def _errors_table(results: Results) -> list[str]:
    rows = [["", "largest absolute error", "largest relative error of an element"]]
    for series in series_of(results):
        figures = series.results.values()
        absolute = max(result["max_abs_error"] for result in figures)
        relative = max(result["max_rel_error"] for result in figures)
        rows.append([series.words, f"{absolute:.1e}", f"{relative:.1e}"])
    return _table(rows)


def _about(results: Results) -> list[str]:
    machine = results.machine
    versions = "; ".join(
        ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        for packages in results.versions.values()
    )
    repetitions = sorted({result["repetitions"] for result in results.results})
    counted = (
        " to ".join(str(each) for each in dict.fromkeys([repetitions[0], repetitions[-1]])) if repetitions else "0"
    )
    return [
        f"Measured on {results.day}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"Python {machine['python']}; {counted} repetitions. Versions: {versions}.",
        "",
        f"Command: `{results.command}`",
    ]


def _image(plot: Path, images: Path, words: str) -> list[str]:
    return [f"![{words}]({images.name}/{plot.name})"]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = rows
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rest)]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"

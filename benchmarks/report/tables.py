"""One table for each kind of benchmark. What has not been measured, or failed, is a row that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import earlier, words
from benchmarks.report.words import MISSING
from benchmarks.suite import plan
from benchmarks.suite.records import Record, read
from metisfl_bench.layouts import LAYOUTS

Result = dict[str, Any]
Cells = Callable[[Result], list[str]]

SETUPS = {
    "": "one process with all learners, one connection",
    "connections": "a connection per learner",
    "processes": "a process per learner",
    "checkpoint": "every version written and synced to disk",
    "tls": "mutual TLS, a connection per learner",
    "skewed16": "layout skewed16",
    "housing": "layout housing",
}


def aggregate(results: Path) -> str:
    head = [
        "Models", "Layout", "Median", "Minimum", "Of read bandwidth", "Of the best reading", "Through the engine",
        "MetisFL C++, earlier", "Largest error", "Largest relative error",
    ]  # fmt: skip
    rows = []
    for learners, size, _ in plan.AGGREGATIONS:
        for layout in LAYOUTS:
            cpp = earlier.AGGREGATE_SECONDS.get((learners, size, layout))

            def cells(result: Result, cpp: float | None = cpp) -> list[str]:
                return [
                    words.seconds(result["seconds_median"]),
                    words.seconds(result["seconds_min"]),
                    words.percent(result["fraction_of_bandwidth"]),
                    words.percent(result["fraction_of_best"]),
                    words.percent(result["engine_fraction"]),
                    words.seconds(cpp) if cpp else MISSING,
                    f"{result['max_abs_error']:.1e}",
                    f"{result['max_relative_error']:.1e}",
                ]

            name = plan.aggregate_name(learners, size, layout)
            rows.append(_row([f"{learners} × {size}", layout], read(results, name), cells, len(head)))
    return words.table(head, rows, left=2)


def rounds(results: Path) -> str:
    head = [
        "Learners × parameters", "Median", "Minimum", "MetisFL C++, earlier", "Faster than it",
        "Sent and received", "Of a bare stream", "Controller's peak memory",
    ]  # fmt: skip
    rows = []
    for learners, size, _ in plan.ROUNDS:
        cpp = earlier.ROUND_SECONDS[learners, size]

        def cells(result: Result, cpp: float = cpp) -> list[str]:
            return [
                words.seconds(result["round_seconds_median"]),
                words.seconds(result["round_seconds_min"]),
                words.seconds(cpp),
                words.times(cpp / result["round_seconds_median"]),
                words.rate(result["bytes_per_second"]),
                words.percent(result["fraction_of_stream"]),
                _peak(result),
            ]

        record = read(results, plan.round_name(learners, size))
        rows.append(_row([f"{learners} × {size}"], record, cells, len(head)))
    return words.table(head, rows)


def phases(results: Path) -> str:
    """Medians of what the controller says of its rounds."""
    found = {
        f"{learners} × {size}": record.result
        for learners, size, _ in plan.ROUNDS
        if (record := read(results, plan.round_name(learners, size))) and record.result
    }
    names = list(dict.fromkeys(name for result in found.values() for name in result["phase_seconds"]))
    if not found:
        return "Not measured yet."
    rows = []
    for size, result in found.items():
        figures = [*(result["phase_seconds"][name] for name in names), result["kernel_seconds_mean"]]
        rows.append([size, *map(words.seconds, figures)])
    return words.table(["Learners × parameters", *names, "kernels"], rows)


def variations(results: Path) -> str:
    head = ["Learners × parameters", "How", "Median", "Of a bare stream", "Controller's peak memory"]

    def cells(result: Result) -> list[str]:
        return [
            words.seconds(result["round_seconds_median"]),
            words.percent(result["fraction_of_stream"]),
            _peak(result),
        ]

    rows = [
        _row([f"{learners} × {size}", how], read(results, plan.round_name(learners, size, name)), cells, len(head))
        for learners, size, _ in plan.VARIED
        for name, how in SETUPS.items()
    ]
    return words.table(head, rows, left=2)


def large(results: Path) -> str:
    head = ["Learners × parameters", "Model", "Budget", "Memory cgroup", "Round", "Resident at most", "Anonymous"]

    def cells(result: Result) -> list[str]:
        return [
            words.bytes_(result["model_bytes"]),
            result["memory_budget"] or "by default",
            f"{result['memory_limit'] >> 20} MiB" if result["memory_limit"] else "none",
            words.seconds(result["round_seconds_median"]),
            _peak(result),
            f"{result['controller_anonymous_mb']:,.0f} MB",
        ]

    rows = [
        _row([f"{learners} × {size}"], read(results, plan.large_name(which)), cells, len(head))
        for which, (learners, size, _, _) in plan.LARGE.items()
    ]
    return words.table(head, rows)


def codecs(results: Path) -> str:
    record = read(results, "codecs")
    if record is None or record.result is None:
        return _absent(record)
    head = [
        "Codec", "Upload", "Download", "Encode", "Decode", "Encode at a learner", "Fold", "Error of bound",
        "Round, loopback", f"Round, {record.result['shaped'] or 'shaped'}",
    ]  # fmt: skip
    rows = [
        [
            name,
            f"{figures['upload_bytes_of_float32']:.3f}",
            f"{figures['download_bytes_of_float32']:.3f}",
            words.rate(figures["encode_bytes_per_second"]),
            words.rate(figures["decode_bytes_per_second"]),
            words.rate(figures["learner_encode_bytes_per_second"]),
            words.rate(figures["fold_bytes_per_second"]),
            f"{figures['max_error_of_bound']:.2f}",
            words.seconds(figures["round_seconds_median"]),
            _optional_seconds(figures.get("shaped_round_seconds_median")),
        ]
        for name, figures in record.result["codecs"].items()
    ]
    return words.table(head, rows)


def fanin(results: Path) -> str:
    record = read(results, "fanin")
    if record is None or record.result is None:
        return _absent(record)
    result = record.result
    participants = f"{result['participants']:,} learners × {words.count(result['parameters'])}"
    rows = [
        ["Connections", f"{result['connections']:,}"],
        ["Time until all are connected", words.seconds(result["connect_seconds"])],
        ["Controller's memory per connection, idle", words.kib(result["bytes_per_connection_idle"])],
        ["Controller's memory per connection, after", words.kib(result["bytes_per_connection_after_round"])],
        [f"A round of all {result['connections']:,}", words.seconds(result["round_of_all_seconds"])],
        [f"A round of {participants}", words.seconds(result["round_seconds_median"])],
        ["The same calls, bare", words.seconds(result["bare_seconds_median"])],
        ["Of bare calls", words.percent(result["fraction_of_bare"])],
    ]  # fmt: skip
    return words.table(["", "Figure"], rows)


def machines(results: Path) -> str:
    """Where and when, once for each difference."""
    found = dict.fromkeys(
        _machine(record.result["machine"], record.day)
        for measurement in plan.measurements()
        if (record := read(results, measurement.name)) and record.result
    )
    return "\n".join(f"- {words_}" for words_ in found) or "- Nothing has been measured yet."


def commands() -> str:
    return "\n".join(f"    {measurement.command}" for measurement in plan.measurements())


def _machine(machine: Result, day: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{day}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {versions}."
    )


def _row(first: list[str], record: Record | None, cells: Cells, width: int) -> list[str]:
    if record is not None and record.result is not None:
        return [*first, *cells(record.result)]
    row = [*first, _absent(record)]
    return row + [MISSING] * (width - len(row))


def _absent(record: Record | None) -> str:
    return "not measured yet" if record is None else f"did not complete: {record.failed}"


def _peak(result: Result) -> str:
    return f"{result['controller_peak_rss_mb']:,.0f} MB"


def _optional_seconds(value: float | None) -> str:
    return MISSING if value is None else words.seconds(value)

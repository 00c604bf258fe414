"""Figures and tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

MISSING = "—"


def seconds(value: float) -> str:
    """Three digits, in the unit that fits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{_digits(value * factor)} {unit}"
    return f"{_digits(value * 1e6)} µs"


def bytes_(value: float) -> str:
    """Three digits, in powers of ten."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{_digits(value / factor)} {unit}"
    return f"{value:.0f} B"


def kib(value: float) -> str:
    return f"{value / 1024:.1f} KiB"


def rate(bytes_per_second: float) -> str:
    return f"{bytes_(bytes_per_second)}/s"


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def times(ratio: float) -> str:
    return f"{ratio:.1f} ×" if ratio < 10 else f"{ratio:.0f} ×"


def count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The first `left` columns are words; the others are figures, and stand right."""
    borders = ["---" if number < left else "--:" for number in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, borders, *rows])


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"

"""What is measured for docs/benchmarks.md: a name, which is also that of its file of results, and a command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from metisfl_bench.layouts import LAYOUTS

AGGREGATIONS = ((25, "10M", 7), (25, "1M", 21), (10, "1M", 21))
"""Models, parameters of each, repetitions."""

ROUNDS = (
    (10, "100k", 21),
    (25, "100k", 21),
    (10, "1M", 15),
    (25, "1M", 15),
    (50, "1M", 11),
    (10, "10M", 9),
    (25, "10M", 7),
)
"""Learners, parameters, rounds."""

VARIATIONS = {
    "connections": ("--connection", "own"),
    "processes": ("--process-per-learner",),
    "checkpoint": ("--checkpoint",),
    "tls": ("--tls",),
    "skewed16": ("--layout", "skewed16"),
    "housing": ("--layout", "housing"),
}
"""What is done differently in the rounds of VARIED."""

VARIED = ((25, "1M", 11), (10, "10M", 7))

LARGE = {
    "50x10M": (50, "10M", 5, ()),
    # A budget, and a memory cgroup of 512 MiB more.
    "10x100M": (10, "100M", 5, ("--memory-budget", "3Gi", "--memory-limit", "3584Mi", "--no-stream")),
    "4x1B": (4, "1B", 1, ("--memory-budget", "2Gi", "--memory-limit", "2560Mi", "--no-stream")),
}

_COUNTS = {"k": 10**3, "M": 10**6, "B": 10**9}


@dataclass(frozen=True)
class Measurement:
    name: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """As one types it."""
        return " ".join(["metisfl", "bench", *self.arguments])


def measurements() -> list[Measurement]:
    """All of them, from the quickest kind to the slowest."""
    return [*_aggregations(), *_rounds(), *_variations(), *_others(), *_large()]


def aggregate_name(learners: int, size: str, layout: str) -> str:
    return f"aggregate-{learners}x{size}-{layout}"


def round_name(learners: int, size: str, variation: str = "") -> str:
    return "-".join(filter(None, ["round", f"{learners}x{size}", variation]))


def large_name(which: str) -> str:
    return f"large-{which}"


def _aggregations() -> Iterator[Measurement]:
    for learners, size, rounds in AGGREGATIONS:
        for layout in LAYOUTS:
            arguments = ("aggregate", *_size(learners, size, rounds), "--layout", layout)
            yield Measurement(aggregate_name(learners, size, layout), arguments)


def _rounds() -> Iterator[Measurement]:
    for learners, size, rounds in ROUNDS:
        yield Measurement(round_name(learners, size), ("round", *_size(learners, size, rounds)))


def _variations() -> Iterator[Measurement]:
    for learners, size, rounds in VARIED:
        for variation, options in VARIATIONS.items():
            arguments = ("round", *_size(learners, size, rounds), *options)
            yield Measurement(round_name(learners, size, variation), arguments)


def _others() -> Iterator[Measurement]:
    yield Measurement("codecs", ("codecs", *_size(10, "1M", 5)))
    yield Measurement("fanin", ("fanin", "--learners", "10000", "--participants", "1000", "--parameters", "10000"))


def _large() -> Iterator[Measurement]:
    for which, (learners, size, rounds, options) in LARGE.items():
        yield Measurement(large_name(which), ("round", *_size(learners, size, rounds), *options))


def _size(learners: int, size: str, rounds: int) -> tuple[str, ...]:
    parameters = int(size[:-1]) * _COUNTS[size[-1]]
    return ("--learners", str(learners), "--parameters", str(parameters), "--rounds", str(rounds))

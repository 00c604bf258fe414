"""What is compared: who, in which set-ups, at which sizes."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.compare.work import Work
from metisfl_bench.layouts import LAYOUTS

SYSTEMS = {"metisfl": "metisfl-operator", "flower": "Flower", "nvflare": "NVIDIA FLARE"}
PARTS = ("aggregate", "round")


@dataclass(frozen=True)
class Setup:
    """A system, and how its processes are set up; `words` say so in tables."""

    system: str
    words: str = ""
    options: tuple[str, ...] = ()
    short_waits: bool = False


AGGREGATIONS = tuple(Setup(system) for system in SYSTEMS)

ROUNDS = (
    Setup("metisfl", "one process with all learners"),
    Setup("metisfl", "a process per learner", options=("--process-per-learner",)),
    Setup("flower", "SuperLink, a SuperNode per learner"),
    Setup("flower", "the same, pauses cut to 0.1 s", short_waits=True),
    Setup("nvflare", "simulator, a process per learner"),
    Setup("nvflare", "the same, pauses cut to 0.1 s", short_waits=True),
)

AGGREGATION_SIZES = ((25, 10_000_000), (25, 1_000_000), (10, 1_000_000))
ROUND_SIZES = ((10, 100_000), (10, 1_000_000), (25, 1_000_000), (10, 10_000_000))
ROUND_LAYOUT = "uniform16"
ROUND_SECONDS = 300.0

QUICK_SIZE = (2, 10_000)


def aggregations(repetitions: int, quick: bool) -> list[Work]:
    sizes, layouts = ((QUICK_SIZE,), ("uniform16",)) if quick else (AGGREGATION_SIZES, tuple(LAYOUTS))
    return [_work(size, layout, repetitions) for size in sizes for layout in layouts]


def rounds(repetitions: int, quick: bool) -> list[Work]:
    return [_work(size, ROUND_LAYOUT, repetitions) for size in ((QUICK_SIZE,) if quick else ROUND_SIZES)]


def _work(size: tuple[int, int], layout: str, repetitions: int) -> Work:
    learners, parameters = size
    shapes = tuple(tensor.shape for tensor in LAYOUTS[layout](parameters).tensors)
    return Work(learners, parameters, layout, shapes, repetitions, ROUND_SECONDS)

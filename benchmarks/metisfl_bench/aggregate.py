"""`metisfl bench aggregate`: the weighted mean of many models, against how fast this machine reads memory.

Two ways through the same work: all models at once in one fused pass, which is what the kernels can do; and each model
through staging and the ready queue of the engine, as it would arrive in a round, which is what a round gets.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metisfl.logs import logger
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout, aligned_zeros
from metisfl.wire.limits import CHUNK_BYTES
from metisfl_bench.layouts import LAYOUTS
from metisfl_bench.machine import last_level_cache_bytes
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.kernels import runtime
from metisfl_controller.aggregation.kernels.bandwidth import ReadProbe
from metisfl_controller.aggregation.memory import MemoryPlan, sums_bytes
from metisfl_controller.aggregation.rule import Staged
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.mean import MeanOptions
from metisfl_controller.aggregation.staging import Place, StagingPool
from metisfl_controller.cpus import available_cpus

SEED = 20231101
_PIECE = 1 << 20

Progress = Callable[[str], None]


@dataclass(frozen=True)
class AggregateBench:
    learners: int
    parameters: int
    layout: str = "uniform16"
    rounds: int = 10
    threads: int | None = None


def run(bench: AggregateBench, tell: Progress) -> dict[str, Any]:
    """Run it and return the figures."""
    layout = LAYOUTS[bench.layout](bench.parameters)
    threads = min(bench.threads or available_cpus(), available_cpus())
    cache = last_level_cache_bytes()
    tell("compiling the kernels")
    runtime.configure(threads)
    tell("measuring how fast memory is read")
    probe = ReadProbe(8 * cache)
    tell(f"drawing {bench.learners} models of {layout.parameters:,} parameters")
    models = models_of(bench.learners, layout)
    weights = [100.0 + number for number in range(bench.learners)]
    tell("aggregating them at once")
    seconds, reads, mean = _at_once(layout, models, weights, bench.rounds, probe)
    tell("aggregating them as they arrive")
    arriving = _as_they_arrive(layout, models, weights, bench.rounds, threads, probe)
    engine_seconds, engine_reads, engine_mean = asyncio.run(arriving)
    tell("comparing with float64")
    absolute, relative = _errors(layout, models, weights, [mean, engine_mean])
    nbytes = bench.learners * layout.nbytes
    median, engine_median = statistics.median(seconds), statistics.median(engine_seconds)
    return {
        "learners": bench.learners,
        "parameters": layout.parameters,
        "layout": bench.layout,
        "rounds": bench.rounds,
        "threads": threads,
        "seed": SEED,
        "input_bytes": nbytes,
        "read_bytes_per_second": statistics.median(reads),
        "read_bytes_per_second_best": probe.best,
        "cache_bytes": cache,
        "seconds_min": min(seconds),
        "seconds_median": median,
        "seconds": seconds,
        "fraction_of_bandwidth": _fraction(nbytes, seconds, reads),
        "fraction_of_best": nbytes / median / probe.best,
        "engine_seconds_median": engine_median,
        "engine_fraction": _fraction(nbytes, engine_seconds, engine_reads),
        "max_abs_error": absolute,
        "max_relative_error": relative,
    }


def _fraction(nbytes: int, seconds: list[float], reads: list[float]) -> float:
    """The median share of what memory gave just before: its speed changes within a run by as much as a half."""
    return statistics.median(nbytes / each / read for each, read in zip(seconds, reads, strict=True))


def models_of(count: int, layout: Layout) -> list[Buffer]:
    """N(0, 1) × 0.1 in float32."""
    generator = np.random.default_rng(SEED)
    models = []
    for _ in range(count):
        model = layout.allocate()
        values = model.view(np.float32)
        generator.standard_normal(dtype=np.float32, out=values)
        values *= np.float32(0.1)
        models.append(model)
    return models


def _at_once(
    layout: Layout, models: list[Buffer], weights: list[float], rounds: int, probe: ReadProbe
) -> tuple[list[float], list[float], NDArray[np.float32]]:
    buffers: dict[int, Buffer] = {}

    def reused(nbytes: int) -> Buffer:
        # Fresh pages for the mean would be measured with every repetition; a controller has them once.
        if nbytes not in buffers:
            buffers[nbytes] = aligned_zeros(nbytes)
        return buffers[nbytes]

    rule = FedAvg(Encoding(layout, Codec.FLOAT32), MeanOptions(allocate=reused))
    uploads = [Staged(model, weight) for model, weight in zip(models, weights, strict=True)]
    seconds, reads = [], []
    for _ in range(rounds + 1):
        reads.append(probe.read(len(models) * layout.nbytes))
        started = time.perf_counter()
        rule.reset()
        mean = rule.finish(last=uploads)
        seconds.append(time.perf_counter() - started)
    return seconds[1:], reads[1:], mean.view(np.float32).copy()


async def _as_they_arrive(
    layout: Layout, models: list[Buffer], weights: list[float], rounds: int, threads: int, probe: ReadProbe
) -> tuple[list[float], list[float], NDArray[np.float32]]:
    encoding = Encoding(layout, Codec.FLOAT32)
    rule = FedAvg(encoding)
    engine = Engine(threads)
    await engine.ready()
    plan = MemoryPlan.of(1 << 62, layout, encoding.nbytes, sums_bytes(layout))

    async def upload(pool: StagingPool, model: Buffer, weight: float) -> None:
        received = 0
        place: Place = pool.request(lambda: received)
        await place.let_in
        for start in range(0, model.nbytes, CHUNK_BYTES):
            data = model.data[start : start + CHUNK_BYTES]
            writing = place.write(start, data)
            if writing is not None:
                await writing
            received = start + len(data)
        assert await engine.flaw(encoding, place.buffer) is None
        await engine.fold(Staged(place.buffer, weight))
        place.leave()

    seconds, reads = [], []
    with tempfile.TemporaryDirectory(prefix="metisfl-bench-") as name, ThreadPoolExecutor(1) as executor:
        pool = StagingPool(Path(name), plan, executor, logger("metisfl.bench"))
        for _ in range(rounds + 1):
            reads.append(probe.read(len(models) * layout.nbytes))
            started = time.perf_counter()
            beginning = engine.begin(rule)
            async with asyncio.TaskGroup() as group:
                for model, weight in zip(models, weights, strict=True):
                    group.create_task(upload(pool, model, weight))
            await beginning
            mean = await engine.finish()
            seconds.append(time.perf_counter() - started)
    engine.close()
    return seconds[1:], reads[1:], mean.view(np.float32)


def _errors(
    layout: Layout, models: list[Buffer], weights: list[float], means: list[NDArray[np.float32]]
) -> tuple[float, float]:
    """The largest errors of the means, absolute and relative, against float64; piece by piece to save memory."""
    absolute = relative = 0.0
    total = sum(weights)
    elements = layout.nbytes // 4
    for start in range(0, elements, _PIECE):
        part = slice(start, min(elements, start + _PIECE))
        expected = np.zeros(part.stop - part.start)
        for model, weight in zip(models, weights, strict=True):
            expected += weight * model.view(np.float32)[part].astype(np.float64)
        expected /= total
        for mean in means:
            error = np.abs(mean[part] - expected)
            absolute = max(absolute, float(error.max(initial=0.0)))
            relative = max(relative, float(np.divide(error, np.abs(expected), where=expected != 0, out=error).max()))
    return absolute, relative

"""This project's controller, in the environment that it is installed in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare import arrays
from benchmarks.compare.children import CompareError
from benchmarks.compare.output import tell
from benchmarks.compare.systems.main import main
from benchmarks.compare.work import Work
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout, TensorSpec
from metisfl_controller import kernel_cache

if TYPE_CHECKING:
    from metisfl_controller.aggregation.engine import Engine

PROCESS_PER_LEARNER = "--process-per-learner"


def aggregation(work: Work) -> list[dict[str, Any]]:
    """The rule on all models at once, and the engine that is given one upload after the other, as a round does."""
    kernel_cache.prepare(os.environ)
    # After the environment is ready for Numba.
    from metisfl_controller.aggregation.engine import Engine
    from metisfl_controller.aggregation.kernels import runtime
    from metisfl_controller.aggregation.rule import Staged
    from metisfl_controller.aggregation.rules.fedavg import FedAvg

    layout = Layout(tuple(TensorSpec(str(number), "float32", shape) for number, shape in enumerate(work.shapes)))
    inputs = arrays.models(work)
    weights = arrays.weights(work)
    names = [tensor.name for tensor in layout.tensors]
    # Models arrive in one buffer each, so that is where they lie before the clock starts.
    uploads = [
        Staged(layout.pack(dict(zip(names, model, strict=True))), float(weight))
        for model, weight in zip(inputs, weights, strict=True)
    ]
    threads = len(os.sched_getaffinity(0))

    def arrays_of(model: Buffer) -> list[NDArray[Any]]:
        unpacked = layout.views(model)
        return [np.asarray(unpacked[name]) for name in names]

    def at_once() -> Buffer:
        rule.reset()
        return rule.finish(last=uploads)

    tell("FedAvg, all at once")
    runtime.configure(threads)
    rule = FedAvg(Encoding(layout, Codec.FLOAT32))
    results = [{"path": "FedAvg kernel", **arrays.measured(work, inputs, at_once, arrays_of)}]

    async def one_by_one() -> Buffer:
        begun = engine.begin(rule)
        folds = [engine.fold(upload) for upload in uploads]
        finished = engine.finish()
        await asyncio.gather(begun, *folds)
        return await finished

    tell("engine, upload by upload")
    with contextlib.closing(Engine(threads)) as engine, asyncio.Runner() as runner:
        runner.run(_ready(engine))
        measured = arrays.measured(work, inputs, lambda: runner.run(one_by_one()), arrays_of)
    return [*results, {"path": "engine", **measured}]


async def _ready(engine: Engine) -> None:
    await engine.ready()


def rounds(work: Work, *options: str) -> dict[str, Any]:
    """`metisfl bench round`: the real controller, and one load process with all learners or, with the option
    PROCESS_PER_LEARNER, one for each. Nothing is written to disk, as in the other systems here."""
    command = [
        str(Path(sys.executable).parent / "metisfl"), "bench", "round", "--json", "--no-stream",
        "--learners", str(work.learners), "--parameters", str(work.parameters),
        "--layout", work.layout, "--rounds", str(work.repetitions), *options,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=work.seconds)
    except subprocess.TimeoutExpired:
        raise CompareError(f"`metisfl bench round` took longer than {work.seconds:g} s") from None
    if done.returncode:
        raise CompareError(f"`metisfl bench round` ended with status {done.returncode}")
    result = json.loads(done.stdout.splitlines()[-1])
    return {
        "seconds_min": result["round_seconds_min"],
        "seconds_median": result["round_seconds_median"],
        "seconds": result["round_seconds"],
    }


if __name__ == "__main__":
    main(aggregation, rounds)

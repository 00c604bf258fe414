"""`metisfl bench codecs`: what each codec costs and saves, alone and in whole rounds.

Alone: its bytes, how fast the controller's kernels and a learner's NumPy convert, how fast uploads are folded, and the
largest error as a share of the codec's bound. In rounds: over loopback, where bytes are cheap, and over a shaped link.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout, aligned_zeros
from metisfl_bench import rounds
from metisfl_bench.codec_bounds import share_of_bound
from metisfl_bench.isolation import network
from metisfl_bench.layouts import LAYOUTS
from metisfl_controller.aggregation.kernels import conversions, runtime
from metisfl_controller.aggregation.rule import Staged
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.mean import MeanOptions
from metisfl_controller.cpus import available_cpus

SEED = 20231101

Progress = Callable[[str], None]


@dataclass(frozen=True)
class CodecBench:
    """`shaped`: the rate of the second link in tc's notation, or None to leave it out."""

    learners: int
    parameters: int
    layout: str = "uniform16"
    rounds: int = 5
    codecs: tuple[str, ...] = tuple(Codec)
    shaped: str | None = "1gbit"


@dataclass(frozen=True)
class _Models:
    """A model, and what training made of it: N(0, 1) × 0.1, and N(0, 1) × 0.001 further on."""

    layout: Layout
    base: Buffer
    trained: Buffer

    @classmethod
    def draw(cls, layout: Layout) -> _Models:
        generator = np.random.default_rng(SEED)
        base, trained = layout.allocate(), layout.allocate()
        for segment in layout.segments:
            values = segment.of(base).view(np.float32)
            generator.standard_normal(dtype=np.float32, out=values)
            values *= np.float32(0.1)
            step = generator.standard_normal(values.size, dtype=np.float32)
            segment.of(trained)[...] = values + np.float32(0.001) * step
        return cls(layout, base, trained)


def run(bench: CodecBench, tell: Progress) -> dict[str, Any]:
    """Run it and return the figures. Raises BenchError."""
    with network(bench.shaped):
        pass  # Before anything is measured: it may not be allowed here.
    layout = LAYOUTS[bench.layout](bench.parameters)
    threads = available_cpus()
    tell("compiling the kernels")
    runtime.configure(threads)
    models = _Models.draw(layout)
    figures = {}
    for name in bench.codecs:
        tell(f"{name}: converting and folding")
        figures[name] = _alone(bench, Codec(name), models)
    for name in bench.codecs:
        figures[name] |= _in_rounds(bench, name, tell)
    return {
        **asdict(bench),
        "codecs": figures,
        "parameters": layout.parameters,
        "model_bytes": layout.nbytes,
        "threads": threads,
        "seed": SEED,
    }


def _alone(bench: CodecBench, codec: Codec, models: _Models) -> dict[str, Any]:
    """Rates are in bytes of the float32 model, whatever the codec makes of them."""
    layout = models.layout
    down = Encoding(layout, codec.for_downloads)
    up = Encoding(layout, codec, updates=not codec.lossless)
    sent, received = aligned_zeros(down.nbytes), layout.allocate()
    base = None if codec.lossless else models.base
    upload = aligned_zeros(up.nbytes)

    def rate(call: Callable[[], Any], count: int = 1) -> float:
        return count * layout.nbytes / _median_seconds(call, bench.rounds)

    figures = {
        "download_bytes_of_float32": down.nbytes / layout.nbytes,
        "upload_bytes_of_float32": up.nbytes / layout.nbytes,
        "encode_bytes_per_second": rate(lambda: conversions.encode(down, models.base, sent)),
        "decode_bytes_per_second": rate(lambda: conversions.decode(down, sent, received)),
        "learner_encode_bytes_per_second": rate(lambda: up.encode(models.trained, upload, base)),
        "learner_decode_bytes_per_second": rate(lambda: down.decode(sent, received)),
    }
    uploads = [Staged(upload.copy() if number else upload, 1.0 + number) for number in range(bench.learners)]
    reused: dict[int, Buffer] = {}
    # Fresh pages would be measured with every repetition; a controller has them once.
    rule = FedAvg(
        up,
        MeanOptions(allocate=lambda nbytes: reused.setdefault(nbytes, aligned_zeros(nbytes))),
    )

    def fold() -> None:
        rule.reset()
        rule.finish(base, last=uploads)

    figures["fold_bytes_per_second"] = rate(fold, bench.learners)
    figures["max_error_of_bound"] = max(_share_of_bound(down, models.base), _share_of_bound(up, models.trained, base))
    return figures


def _share_of_bound(encoding: Encoding, model: Buffer, base: Buffer | None = None) -> float:
    """Of the segments, each against the exact difference, or the model itself."""
    decoded = encoding.decode(encoding.encode(model, base=base))
    shares = []
    for segment in encoding.layout.segments:
        exact: NDArray[np.float32] = segment.of(model).view(np.float32)
        if base is not None:
            # An update is a float32 number by definition, so the subtraction is no error of the codec.
            exact = exact - segment.of(base).view(np.float32)
        result = segment.of(decoded).astype(np.float64)
        shares.append(share_of_bound(encoding.codec, exact.astype(np.float64), result))
    return max(shares)


def _median_seconds(call: Callable[[], Any], repetitions: int) -> float:
    call()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _in_rounds(bench: CodecBench, codec: str, tell: Progress) -> dict[str, Any]:
    def measure(shaped: str | None) -> dict[str, Any]:
        of_run = rounds.RoundBench(
            learners=bench.learners,
            parameters=bench.parameters,
            layout=bench.layout,
            rounds=bench.rounds,
            codec=codec,
            shaped=shaped,
            bare_stream=False,
        )
        return rounds.run(of_run, lambda _: None)

    tell(f"{codec}: rounds over loopback")
    loopback = measure(None)
    figures = {
        "bytes_moved": loopback["bytes_moved"],
        "round_seconds_median": loopback["round_seconds_median"],
    }
    if bench.shaped is not None:
        tell(f"{codec}: rounds over {bench.shaped}")
        figures["shaped_round_seconds_median"] = measure(bench.shaped)["round_seconds_median"]
    return figures

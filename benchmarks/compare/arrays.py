"""The arrays that every system averages, and how far its mean is from the exact one. NumPy only."""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare.work import Work

SEED = 20_260_101

Singles = NDArray[np.float32]
Model = list[Singles]


def models(work: Work) -> list[Model]:
    """A model for each learner: values N(0, 1) × 0.1 that are the same in every process."""
    return [_split(_flat(work, learner), work) for learner in range(work.learners)]


def weights(work: Work) -> list[int]:
    """Training examples of each learner; all different."""
    return [100 + 7 * learner for learner in range(work.learners)]


def checksum(inputs: Sequence[Model]) -> int:
    """CRC-32 over all arrays: equal where the inputs are equal."""
    crc = 0
    for model in inputs:
        for array in model:
            crc = zlib.crc32(array.data, crc)
    return crc


def measured(
    work: Work,
    inputs: Sequence[Model],
    average: Callable[[], Any],
    arrays_of: Callable[[Any], Sequence[NDArray[Any]]],
) -> dict[str, Any]:
    """Call `average` once to warm up and `work.repetitions` times with a clock, and compare the last result with the
    mean in float64. `arrays_of` turns a result into arrays in the models' order, off the clock."""
    result = average()
    seconds = []
    for _ in range(work.repetitions):
        del result  # Its memory is the next one's, as in a controller that lets the last round go.
        started = time.perf_counter()
        result = average()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    return {
        "seconds_min": min(seconds),
        "seconds_median": median,
        "seconds": seconds,
        "bytes_per_second": work.learners * work.model_bytes / median,
        **_errors(work, inputs, arrays_of(result)),
        "inputs_crc32": checksum(inputs),
    }


def _flat(work: Work, learner: int) -> Singles:
    values = np.random.default_rng([SEED, learner]).standard_normal(work.elements, np.float32)
    values *= np.float32(0.1)
    return values


def _split(values: Singles, work: Work) -> Model:
    parts: Model = []
    start = 0
    for shape in work.shapes:
        size = int(np.prod(shape, dtype=np.int64))
        parts.append(values[start : start + size].reshape(shape))
        start += size
    return parts


def _errors(work: Work, inputs: Sequence[Model], result: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Largest absolute error, and the largest error relative to the exact mean's own size."""
    factors = np.asarray(weights(work), np.float64)
    absolute = relative = 0.0
    for number, array in enumerate(result):
        exact = np.zeros(array.size, np.float64)
        for factor, model in zip(factors, inputs, strict=True):
            exact += factor * model[number].ravel()
        exact /= factors.sum()
        difference = np.abs(array.ravel().astype(np.float64) - exact)
        absolute = max(absolute, float(difference.max()))
        np.divide(difference, np.abs(exact), out=difference, where=exact != 0)
        relative = max(relative, float(difference.max()))
    return {"max_abs_error": absolute, "max_rel_error": relative}

"""The server optimisers' step: sums of updates and the base into the new model, with moments that are kept.

One kernel for all optimisers and dtypes; numbers are float64 while they are worked on. Compiled only for rules that
have an optimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit, prange
from numpy.typing import NDArray

from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.access import pointer, take
from metisfl_controller.aggregation.kernels.bits import (
    brain_to_single,
    half_to_single,
)
from metisfl_controller.aggregation.kernels.schedule import Blockwise
from metisfl_controller.aggregation.kernels.writers import Sums, write_block

MOMENTUM, ADAM, YOGI, ADAGRAD = range(4)

_BLOCK = 1 << 12
"""Elements: base, moments and 32 KiB of float64 stay in the level-2 cache."""


@njit(nogil=True)
def _add_base(kind: int, delta: Sums, base: int, at: int, share: float) -> None:
    """delta += share · base."""
    n = delta.size
    if kind == kinds.FLOAT32:
        singles = carray(pointer(base + at * 4), n, np.float32)
        for i in range(n):
            delta[i] += share * np.float64(singles[i])
    elif kind == kinds.FLOAT64:
        doubles = carray(pointer(base + at * 8), n, np.float64)
        for i in range(n):
            delta[i] += share * doubles[i]
    elif kind == kinds.FLOAT16:
        halves = carray(pointer(base + at * 2), n, np.uint16)
        for i in range(n):
            delta[i] += share * np.float64(half_to_single(halves[i]))
    elif kind == kinds.BFLOAT16:
        halves = carray(pointer(base + at * 2), n, np.uint16)
        for i in range(n):
            delta[i] += share * np.float64(brain_to_single(halves[i]))


def _steps(dtype: type[Any]) -> Callable[..., None]:
    """Turns mean updates into steps, with moments of a dtype."""
    size = np.dtype(dtype).itemsize

    @njit(nogil=True, error_model="numpy")
    def step(
        optimizer: int,
        delta: Sums,
        first: int,
        second: int,
        at: int,
        rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        n = delta.size
        m = carray(pointer(first + at * size), n, dtype)
        if optimizer == MOMENTUM:
            for i in range(n):
                moment = beta1 * np.float64(m[i]) + delta[i]
                m[i] = moment
                delta[i] = rate * moment
            return
        v = carray(pointer(second + at * size), n, dtype)
        for i in range(n):
            square = delta[i] * delta[i]
            before = np.float64(v[i])
            if optimizer == ADAM:
                spread = beta2 * before + (1.0 - beta2) * square
            elif optimizer == YOGI:
                spread = before - (1.0 - beta2) * square * np.sign(before - square)
            else:
                spread = before + square
            moment = beta1 * np.float64(m[i]) + (1.0 - beta1) * delta[i]
            m[i] = moment
            v[i] = spread
            delta[i] = rate * moment / (np.sqrt(spread) + tau)

    return step


_step_singles = _steps(np.float32)
_step_doubles = _steps(np.float64)


@njit(nogil=True)
def _step_blocks(
    ticket: int,
    step: int,
    stop: int,
    optimizer: int,
    kind: int,
    sums: int,
    divisor: float,
    share: float,
    base: int,
    out: int,
    first: int,
    second: int,
    rate: float,
    beta1: float,
    beta2: float,
    tau: float,
) -> int:
    """Step blocks until none is left; returns how many results are not finite."""
    scratch = np.empty(_BLOCK, np.float64)
    bad = 0
    while True:
        begin = take(ticket, step)
        if begin >= stop:
            return bad
        end = min(stop, begin + step)
        for at in range(begin, end, _BLOCK):
            n = min(_BLOCK, end - at)
            delta, summed = scratch[:n], carray(pointer(sums + at * 8), n, np.float64)
            for i in range(n):
                delta[i] = summed[i] / divisor
            if share != 0.0:
                _add_base(kind, delta, base, at, share)
            if kind == kinds.FLOAT64:
                _step_doubles(optimizer, delta, first, second, at, rate, beta1, beta2, tau)
            else:
                _step_singles(optimizer, delta, first, second, at, rate, beta1, beta2, tau)
            bad += write_block(kind, delta, 1.0, out, base, 1.0, at)


@njit(nogil=True, cache=True, error_model="numpy")
def _step_alone(*arguments):  # type: ignore[no-untyped-def]
    return _step_blocks(*arguments)


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _step_together(workers, *arguments):  # type: ignore[no-untyped-def]
    bad = 0
    for _ in prange(workers):
        bad += _step_blocks(*arguments)
    return bad


_STEP = Blockwise(_step_alone, _step_together)


def step(
    optimizer: int,
    sums: Sums,
    start: int,
    stop: int,
    *,
    divisor: float,
    share: float,
    base: NDArray[Any],
    out: NDArray[Any],
    moments: tuple[NDArray[Any], ...],
    rate: float,
    beta1: float,
    beta2: float,
    tau: float,
) -> int:
    """out = base + step(Δ), with Δ = sums / divisor + share · base, for elements `start` … `stop`, a multiple of 64.

    All arrays have shape (elements,). `base` and `out` have one floating-point dtype. `moments`, the first and for all
    but MOMENTUM the second, are float64 where that is float64, and float32 otherwise; each is rounded once. Returns how
    many results are not finite.
    """
    return int(
        _STEP.run(
            start,
            stop,
            _BLOCK,
            (stop - start) * (4 + len(moments)),
            optimizer,
            kinds.kind_of_dtype(out.dtype),
            sums.ctypes.data,
            float(divisor),
            float(share),
            base.ctypes.data,
            out.ctypes.data,
            moments[0].ctypes.data,
            moments[-1].ctypes.data,
            rate,
            beta1,
            beta2,
            tau,
        )
    )


def compile_all() -> None:
    _STEP.compile(MOMENTUM, kinds.FLOAT32, 0, 1.0, 0.0, 0, 0, 0, 0, 1.0, 0.0, 0.0, 1.0)

"""Makes the kernels ready for use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numba

from metisfl_controller.aggregation.kernels import conversions, flaws, folding


class Kernels(Protocol):
    """A module of kernels."""

    def compile_all(self) -> None: ...


def configure(threads: int, more: Iterable[Kernels] = ()) -> None:
    """Choose OpenMP and the number of threads, and compile the kernels that every rule needs, and `more`, or load what
    was compiled before.

    Raises RuntimeError when OpenMP's library is missing (package libgomp1 in slim images).
    """
    numba.config.THREADING_LAYER = "omp"
    try:
        numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
        for module in (folding, conversions, flaws, *more):
            module.compile_all()
    except ValueError as error:
        raise RuntimeError(f"the aggregation kernels cannot start: {error}") from error
    # One thread needs no threading layer, and has none.
    if numba.get_num_threads() > 1 and numba.threading_layer() != "omp":
        raise RuntimeError(f"expected OpenMP threads, got '{numba.threading_layer()}': install libgomp1")

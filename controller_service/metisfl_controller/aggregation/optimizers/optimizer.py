"""A server optimiser: takes the mean update for a gradient and keeps moments from round to round.

    Δ_t = Σ_k q_k · u_k / D        the mean update of the weighted-mean rule it is on top of
    x_{t+1} = x_t + step(Δ_t)      `momentum` and `adaptive` have the steps

Only trainable floating-point tensors are stepped; all others are averaged. The moments are float32, and float64 for
float64 tensors; everything is worked out in float64. They are stored with each version, so a controller that starts
again goes on to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.layout import Buffer, Layout, Segment, aligned, aligned_zeros, is_float
from metisfl_controller.aggregation.kernels.steps import step
from metisfl_controller.aggregation.mapped import tiles
from metisfl_controller.aggregation.sums import SegmentSums, require_finite


@dataclass(frozen=True)
class Step:
    """One optimiser with its numbers. `kernel`: which one; `initial` has each moment's name and first value."""

    kernel: int
    initial: Mapping[str, float]
    rate: float
    beta1: float
    beta2: float = 0.0
    tau: float = 1.0


class ServerOptimizer:
    """The moments of one federation's model, and their next step."""

    def __init__(self, step: Step, layout: Layout, allocate: Callable[[int], Buffer] = aligned_zeros) -> None:
        """`allocate` makes zeroed, 64-byte aligned buffers of a number of bytes; it may raise OSError."""
        self._step = step
        self._places, self._nbytes = _places(layout)
        self._moments = {name: self._filled(allocate(self._nbytes), value) for name, value in step.initial.items()}

    def step(self, sums: SegmentSums, divisor: float, share: float, base: NDArray[Any], out: NDArray[Any]) -> None:
        """out = base + step(sums / divisor + share · base), and the moments of this segment move on. Raises ValueError
        when a result is not finite."""
        moments = tuple(self._of(sums.encoded.segment, moment) for moment in self._moments.values())
        bad = 0
        for start, stop in tiles(out.size, read=[sums.values, base], written=[out, *moments]):
            bad += step(
                self._step.kernel,
                sums.values,
                start,
                stop,
                divisor=divisor,
                share=share,
                base=base,
                out=out,
                moments=moments,
                rate=self._step.rate,
                beta1=self._step.beta1,
                beta2=self._step.beta2,
                tau=self._step.tau,
            )
        require_finite(bad, out)

    def state(self) -> Mapping[str, Buffer]:
        """The moments by name, each with the trainable floating-point segments one after the other."""
        return self._moments

    def restore(self, state: Mapping[str, Buffer]) -> None:
        """Raises ValueError for moments of another optimiser or layout."""
        sizes, wanted = ({name: array.size for name, array in of.items()} for of in (state, self._moments))
        if sizes != wanted:
            raise ValueError(f"the server optimiser's state has {sizes} bytes, and {wanted} are needed")
        for name, moment in self._moments.items():
            for start, stop in tiles(moment.size, read=[state[name]], written=[moment]):
                moment[start:stop] = state[name][start:stop]

    def _filled(self, moment: Buffer, value: float) -> Buffer:
        for segment in self._places if value else ():
            part = self._of(segment, moment)
            for start, stop in tiles(part.size, written=[part]):
                part[start:stop] = value
        return moment

    def _of(self, segment: Segment, moment: Buffer) -> NDArray[Any]:
        start, dtype = self._places[segment]
        return moment[start : start + segment.elements * dtype.itemsize].view(dtype)


def moments_nbytes(layout: Layout) -> int:
    """Bytes that each moment takes."""
    return _places(layout)[1]


def _places(layout: Layout) -> tuple[dict[Segment, tuple[int, np.dtype[Any]]], int]:
    """Where each stepped segment lies in a moment, its dtype there, and the bytes of all."""
    places: dict[Segment, tuple[int, np.dtype[Any]]] = {}
    offset = 0
    for segment in layout.segments:
        if segment.trainable and is_float(segment.dtype):
            dtype = np.dtype(np.float64 if segment.dtype == np.float64 else np.float32)
            places[segment] = offset, dtype
            offset = aligned(offset + segment.elements * dtype.itemsize)
    return places, offset

"""The arithmetic of the codecs, in NumPy: the reference for the controller's kernels, and what learners run.

Everything goes tile by tile, so that no temporary has the size of a model (TopK's magnitudes excepted). Source arrays
are flat, of a floating-point dtype; `metisfl.wire.codecs` says what each form holds and how exact it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Elements of Int8 that share a scale."""

LARGEST_SCALE = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))
"""127 times the quotient itself would round to infinity."""

SMALLEST_SCALE = np.finfo(np.float32).tiny
"""A subnormal scale would not be exact enough to divide by; the block becomes zero."""

_TILE = 1 << 16
"""Elements handled at a time: a multiple of BLOCK, and temporaries that stay in the cache."""

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

Array = NDArray[Any]


@dataclass(frozen=True)
class Floats:
    """What is encoded: `model`, or `model` − `base`; read as float32, tile by tile."""

    model: Array
    base: Array | None = None

    @property
    def size(self) -> int:
        return self.model.size

    def tiles(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Ranges and their values, rounded once to float32; not to be written to."""
        for tile, values in self.wide_tiles():
            with np.errstate(over="ignore"):
                yield tile, values.astype(np.float32, copy=False)

    def wide_tiles(self) -> Iterator[tuple[slice, Array]]:
        """Ranges and their values in float64 if they are that, else in float32; not to be written to."""
        # At least float32, so that differences of 16-bit floats are not rounded twice.
        wide = np.float64 if self.model.dtype == np.float64 else np.float32
        for tile in tiles(self.size):
            values = self.model[tile].astype(wide, copy=False)
            if self.base is not None:
                # Diverged weights are the caller's to refuse; here they must only stay visible.
                with np.errstate(over="ignore", invalid="ignore"):
                    values = values - self.base[tile].astype(wide, copy=False)
            yield tile, values


def tiles(size: int) -> Iterator[slice]:
    """Ranges of a flat array of `size` elements that are worked on one after the other."""
    for start in range(0, size, _TILE):
        yield slice(start, min(size, start + _TILE))


def to_raw(source: Floats, out: Array) -> None:
    """In the model's own dtype: itself, bit for bit, or the difference to the base, rounded to nearest even."""
    if source.base is None:
        out[...] = source.model
        return
    for tile, values in source.wide_tiles():
        with np.errstate(over="ignore"):
            out[tile] = values


def to_bfloat16(source: Floats, halves: NDArray[np.uint16]) -> None:
    """Round to nearest even; beyond bfloat16's range to infinity."""
    out = halves.view(BFLOAT16)
    for tile, values in source.tiles():
        out[tile] = values


def from_bfloat16(halves: NDArray[np.uint16], out: Array) -> None:
    # A detour through float32, exact: bfloat16 converts to every other dtype from there.
    for tile in tiles(out.size):
        out[tile] = halves[tile].view(BFLOAT16).astype(np.float32)


def to_float16(source: Floats, halves: NDArray[np.uint16]) -> None:
    """Round to nearest even; beyond float16's range to infinity."""
    out = halves.view(np.float16)
    for tile, values in source.tiles():
        with np.errstate(over="ignore", under="ignore"):
            out[tile] = values


def from_float16(halves: NDArray[np.uint16], out: Array) -> None:
    for tile in tiles(out.size):
        out[tile] = halves[tile].view(np.float16)


def to_int8(source: Floats, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
    """codes = round(x / scale) to nearest even, scale = max|x| / 127 of each block, all in float32.

    A block with NaN or infinity gets the scale NaN and codes 0; one that is too small to scale gets 0 and 0.
    """
    for tile, values in source.tiles():
        blocks = -(-values.size // BLOCK)
        padded = np.zeros((blocks, BLOCK), np.float32)
        padded.reshape(-1)[: values.size] = values
        with np.errstate(invalid="ignore", under="ignore"):
            scale = np.abs(padded).max(axis=1) / np.float32(127)
        finite = np.isfinite(scale)
        scale = np.minimum(scale, LARGEST_SCALE)
        scale[finite & (scale < SMALLEST_SCALE)] = 0
        usable = finite & (scale > 0)
        divisor = np.where(usable, scale, np.float32(1))[:, None]
        padded[~usable] = 0
        np.rint(np.divide(padded, divisor, out=padded), out=padded)
        codes[tile] = padded.reshape(-1)[: values.size]
        scale[~finite] = np.nan
        scales[tile.start // BLOCK : tile.start // BLOCK + blocks] = scale


def from_int8(codes: NDArray[np.int8], scales: NDArray[np.float32], out: Array) -> None:
    """x = code · scale, in float32."""
    for tile in tiles(out.size):
        each = np.repeat(scales[tile.start // BLOCK : -(-tile.stop // BLOCK)], BLOCK)[: tile.stop - tile.start]
        with np.errstate(over="ignore", under="ignore"):
            out[tile] = codes[tile].astype(np.float32) * each


def to_topk(source: Floats, indices: NDArray[np.uint32], values: NDArray[np.float32]) -> None:
    """The `indices.size` elements of largest magnitude, NaN counting as infinite, by rising index; of equal magnitudes
    the first. Takes 4 bytes an element of memory for the time of the search."""
    kept = indices.size
    if not kept:
        return
    magnitudes = np.empty(source.size, np.float32)
    for tile, part in source.tiles():
        magnitudes[tile] = _magnitudes(part)
    magnitudes.partition(source.size - kept)
    threshold = magnitudes[source.size - kept]
    ties = kept - int(np.count_nonzero(magnitudes[source.size - kept :] > threshold))
    del magnitudes
    filled = 0
    for tile, part in source.tiles():
        these = _magnitudes(part)
        equal = np.flatnonzero(these == threshold)[:ties]
        ties -= equal.size
        chosen = np.sort(np.concatenate((np.flatnonzero(these > threshold), equal)))
        indices[filled : filled + chosen.size] = chosen + tile.start
        values[filled : filled + chosen.size] = part[chosen]
        filled += chosen.size


def from_topk(indices: NDArray[np.uint32], values: NDArray[np.float32], out: Array) -> None:
    """Zero everywhere but at the indices."""
    out[...] = 0
    with np.errstate(over="ignore", under="ignore"):
        out[indices] = values


def rising(indices: NDArray[np.uint32], size: int) -> bool:
    """Whether indices rise strictly and stay below `size`."""
    for tile in tiles(indices.size):
        part = indices[max(0, tile.start - 1) : tile.stop]
        if not (part[1:] > part[:-1]).all():
            return False
    return not indices.size or int(indices[-1]) < size


def first_not_finite(values: Array) -> int | None:
    """The first element of a flat floating-point array that is NaN or infinite."""
    for tile in tiles(values.size):
        finite = np.isfinite(values[tile])
        if not finite.all():
            return int(tile.start + np.argmin(finite))
    return None


def _magnitudes(values: NDArray[np.float32]) -> NDArray[np.float32]:
    magnitudes = np.abs(values)
    magnitudes[np.isnan(magnitudes)] = np.inf
    return magnitudes

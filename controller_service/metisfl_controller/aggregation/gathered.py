"""The uploads of a whole round, gone over together, tile by tile: what rules that need all of them at once are made of.

Memory that is a file is let go of behind each tile, so that no more than a tile of every upload is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer
from metisfl.wire.segments import EncodedSegment
from metisfl_controller.aggregation.kernels import kinds, products, ranks
from metisfl_controller.aggregation.kernels.folding import Source, finish
from metisfl_controller.aggregation.mapped import tiles
from metisfl_controller.aggregation.sums import require_finite

TILE = 1 << 20
"""Elements that are worked on at a time, at most: 8 MiB of sums."""

TILE_BYTES = 1 << 27
"""Of all uploads together in a tile, if that leaves one of the kernels' pieces."""

Array = NDArray[Any]
Floats = NDArray[np.float64]
_Write = Callable[[Source, int, int, Array, Array | None], int]
_SumOf = Callable[[Source, int, int, Floats], None]


@dataclass(frozen=True)
class Gathered:
    """K uploads in their encoded form, and the base that they were trained from.

    *Updates* below are the differences of what training changes step by step, trainable floating-point tensors, to the
    base: a vector each, whether uploads hold it or whole models. Other tensors, such as running means and counters, are
    *carried along*.
    """

    encoding: Encoding
    contents: Sequence[Buffer]
    base: Buffer | None

    def __len__(self) -> int:
        return len(self.contents)

    def inner_products(self) -> Floats:
        """Of every two updates, (K, K): one pass over the uploads. An update so large that its norm leaves the range of
        float64 has infinities or NaN in its row and column."""
        found = np.zeros((len(self), len(self)))
        for encoded in self._stepped():
            base = None if self.encoding.updates else self._base_of(encoded)
            source, planes = self._source(encoded, np.ones(len(self)))
            for start, stop in tiles(encoded.segment.elements, read=[*planes, base], tile=_tile(encoded, planes)):
                products.add_products(found, source, start, stop, base=base)
        return found

    def combine(self, weights: Floats, total: float, model: Buffer) -> None:
        """Write base + Σ_k weights[k] · update_k / total to the trainable floating-point tensors of a model.

        One pass over the uploads whose weight is not 0. Weights (K,) are not negative.
        """
        chosen = self._only(np.flatnonzero(weights))
        weights = weights[weights != 0]
        share = 1.0 if self.encoding.updates else 1.0 - float(weights.sum()) / total

        def write(source: Source, start: int, stop: int, out: Array, base: Array | None) -> int:
            return finish(_NO_SUMS, source, start, stop, empty=True, total=total, out=out, base=base, share=share)

        for encoded in self._stepped():
            chosen._write(encoded, weights, model, write, with_base=share != 0)

    def mean_of_ranks(self, low: int, high: int, model: Buffer, segments: Sequence[EncodedSegment]) -> None:
        """Write each coordinate's mean of its values of ranks `low` … `high` (exclusive), in one pass."""

        def sum_of(source: Source, start: int, stop: int, sums: Floats) -> None:
            ranks.sum_ranks(source, start, stop, low, high, sums)

        self._rank(segments, model, sum_of, high - low)

    def mean_around_median(self, chosen: Sequence[int], width: int, model: Buffer) -> None:
        """Write to the trainable floating-point tensors each coordinate's mean of the `width` of the `chosen` uploads'
        values that are closest to their median, in one pass."""

        def sum_of(source: Source, start: int, stop: int, sums: Floats) -> None:
            ranks.sum_around_median(source, start, stop, width, sums)

        self._only(chosen)._rank(self._stepped(), model, sum_of, width)

    def median(self, model: Buffer, segments: Sequence[EncodedSegment]) -> None:
        """Write each coordinate's median, of an even number of values the mean of the middle two."""
        self.mean_of_ranks((len(self) - 1) // 2, len(self) // 2 + 1, model, segments)

    def carry_along(self, model: Buffer) -> None:
        """Write the tensors that updates do not speak of: each coordinate's median over the uploads, so that no choice
        among updates lets through what their senders put elsewhere."""
        self.median(model, [encoded for encoded in self.encoding.segments if not encoded.differs])

    def _stepped(self) -> list[EncodedSegment]:
        return [encoded for encoded in self.encoding.segments if encoded.differs]

    def _only(self, chosen: Iterable[int]) -> Gathered:
        return replace(self, contents=[self.contents[k] for k in chosen])

    def _base_of(self, encoded: EncodedSegment) -> Array:
        if self.base is None:
            raise ValueError("updates are differences: the model that they were made from is needed")
        return encoded.segment.of(self.base)

    def _source(self, encoded: EncodedSegment, weights: Floats) -> tuple[Source, list[Array]]:
        models = [kinds.planes(encoded, content) for content in self.contents]
        source = Source.of(kinds.kind_of(encoded), models, weights.tolist())
        return source, [plane for model in models for plane in model]

    def _rank(self, segments: Sequence[EncodedSegment], model: Buffer, sum_of: _SumOf, count: int) -> None:
        """Write sums of `count` values each, divided by that."""
        tile = np.empty(min(TILE, max((encoded.segment.elements for encoded in segments), default=0)))

        def write(source: Source, start: int, stop: int, out: Array, base: Array | None) -> int:
            sums = tile[: stop - start]
            sum_of(source, start, stop, sums)
            added = None if base is None else base[start:stop]
            return finish(
                sums, _NO_MODELS, 0, sums.size, empty=False, total=float(count), out=out[start:stop], base=added
            )

        for encoded in segments:
            with_base = self.encoding.updates and encoded.differs
            self._write(encoded, np.ones(len(self)), model, write, with_base=with_base)

    def _write(
        self, encoded: EncodedSegment, weights: Floats, model: Buffer, write: _Write, *, with_base: bool
    ) -> None:
        """Fill a segment of a model. Raises ValueError when a result is not finite."""
        source, planes = self._source(encoded, weights)
        out = encoded.segment.of(model)
        base = self._base_of(encoded) if with_base else None
        bad = 0
        for start, stop in tiles(out.size, read=[*planes, base], written=[out], tile=_tile(encoded, planes)):
            bad += write(source, start, stop, out, base)
        require_finite(bad, out)


_NO_SUMS = np.empty(0)
_NO_MODELS = Source.of(kinds.FLOAT32, [], [])


def _tile(encoded: EncodedSegment, planes: Sequence[Array]) -> int:
    """Elements of a segment that are worked on at a time; tiles are cut where the kernels' own pieces end."""
    nbytes = sum(plane.nbytes for plane in planes)
    fitting = TILE_BYTES * encoded.segment.elements // max(1, nbytes) // products.PIECE * products.PIECE
    return min(TILE, max(products.PIECE, fitting))

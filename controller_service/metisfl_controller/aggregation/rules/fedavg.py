"""FedAvg: the mean of the learners' models, weighted by their training examples.

    w_{t+1} = Σ_k n_k · w_k / Σ_k n_k        (McMahan et al. 2017, arXiv 1602.05629, algorithm 1)

Every tensor takes part, trainable or not: running means are averaged like weights, integers are rounded once. Learners
that send updates u_k = w_k − w_t lead to the same mean as w_{t+1} = w_t + Σ_k n_k · u_k / Σ_k n_k.

Scaled updates, s_k · u_k with 0 ≤ s_k ≤ 1, concern the trainable floating-point tensors. There w_{t+1} = w_t +
Σ_k n_k · s_k · u_k / Σ_k n_k. Written with whole models, so that no difference need be formed, it is

    w_{t+1} = Σ_k (n_k · s_k) · w_k / N + (1 − Σ_k n_k · s_k / N) · w_t,        N = Σ_k n_k
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.codecs import EncodedSegment, Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.folding import Source, finish, fold
from metisfl_controller.aggregation.mapped import is_mapped, release
from metisfl_controller.aggregation.rule import Rule, Staged

_TILE = 1 << 24
"""Elements after which memory that is a file is let go, 128 MiB of sums."""


class FedAvg(Rule):
    """Running weighted sums of one round, in float64, a flat array of shape (elements,) per segment.

    Uploads are added in the order given, one after the other; how they are divided over calls does not change a bit
    of the result. With K uploads the mean is within (K + 2) · 2^-53 · max |x| of the exact one before it is rounded,
    once, to the tensor's dtype; integers are exact while Σ n_k · |x| stays below 2^53.
    """

    def __init__(
        self, encoding: Encoding, *, updates: bool = False, allocate: Callable[[int], Buffer] = aligned_zeros
    ) -> None:
        """`encoding`: of the uploads. `updates`: they hold differences where `EncodedSegment.differs`. `allocate` makes
        zeroed, 64-byte aligned buffers of a number of bytes for the sums and each mean; it may raise OSError."""
        self._encoding = encoding
        self._updates = updates
        self._allocate = allocate
        self._sums = [allocate(8 * part.segment.elements).view(np.float64) for part in encoding.segments]
        self._total = self._scaled_total = 0.0
        self._empty = True

    @property
    def total_weight(self) -> float:
        return self._total

    def reset(self) -> None:
        """Forget everything. The sums are overwritten by the next fold."""
        self._total = self._scaled_total = 0.0
        self._empty = True

    def fold(self, uploads: Sequence[Staged], base: Buffer | None = None) -> None:
        """Add uploads; their memory may be reused afterwards. Several at once cost less than one by one."""
        if not uploads:
            return
        self._check(uploads)
        for encoded, sums in zip(self._encoding.segments, self._sums, strict=True):
            source, planes = _source(encoded, uploads)
            for start, stop in _tiles(sums, *planes):
                fold(sums, source, start, stop, empty=self._empty)
                release(sums[start:stop], written=True)
                _release_read(encoded, planes, start, stop)
        self._count(uploads)
        self._empty = False

    def finish(self, base: Buffer | None = None, last: Sequence[Staged] = ()) -> Buffer:
        """Add the `last` uploads and return the mean as a new buffer of the layout, in one pass over both.

        `base`: the model that updates were made from. Nothing can be folded afterwards until `reset`. Raises ValueError
        when nothing of positive weight was folded, or when the mean left the range of a tensor's dtype.
        """
        self._count(last)
        total = self._total
        if not total > 0:
            raise ValueError("there is nothing to average: no update carried a positive weight")
        layout = self._encoding.layout
        self._check(last)
        if base is not None:
            kinds.require(base, layout.nbytes, "a base")
        model = self._allocate(layout.nbytes)
        for encoded, sums in zip(self._encoding.segments, self._sums, strict=True):
            out = encoded.segment.of(model)
            share = self._share_of_base(encoded)
            added = encoded.segment.of(_needed(base)) if share else None
            source, planes = _source(encoded, last)
            bad = 0
            for start, stop in _tiles(sums, *planes, out, *([added] if added is not None else [])):
                bad += finish(
                    sums, source, start, stop, empty=self._empty, total=total, out=out, base=added, share=share
                )
                release(sums[start:stop], written=False)
                release(out[start:stop], written=True)
                if added is not None:
                    release(added[start:stop], written=False)
                _release_read(encoded, planes, start, stop)
            if bad:
                raise ValueError(
                    f"the mean of {bad} values of dtype {out.dtype} is beyond their range: have the learners' weights "
                    "diverged?"
                )
        return model

    def _count(self, uploads: Sequence[Staged]) -> None:
        for upload in uploads:
            self._total += upload.weight
            self._scaled_total += upload.weight * upload.scale

    def _share_of_base(self, encoded: EncodedSegment) -> float:
        """How much of the base to add to the quotient of the sums."""
        if not encoded.differs:
            return 0.0
        if self._updates:
            return 1.0
        return 1.0 - self._scaled_total / self._total

    def _check(self, uploads: Sequence[Staged]) -> None:
        for upload in uploads:
            kinds.require(upload.content, self._encoding.nbytes, "an upload")


def _needed(base: Buffer | None) -> Buffer:
    if base is None:
        raise ValueError("updates are differences: the model that they were made from is needed")
    return base


def _source(encoded: EncodedSegment, uploads: Sequence[Staged]) -> tuple[Source, list[NDArray[Any]]]:
    models = [kinds.planes(encoded, upload.content) for upload in uploads]
    weights = [upload.weight * upload.scale if encoded.differs else upload.weight for upload in uploads]
    return Source.of(kinds.kind_of(encoded), models, weights), [plane for model in models for plane in model]


def _tiles(sums: NDArray[Any], *others: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Ranges of elements to go over one after the other: all at once, unless some of the memory is a file."""
    tile = _TILE if any(is_mapped(array) for array in (sums, *others)) else sums.size
    for start in range(0, sums.size, max(1, tile)):
        yield start, min(sums.size, start + tile)


def _release_read(encoded: EncodedSegment, planes: Sequence[NDArray[Any]], start: int, stop: int) -> None:
    """Let go of what a tile has read; `release` cares for files only."""
    elements = encoded.segment.elements
    for plane in planes:
        # Indices of TopK are spread about evenly; letting go too early costs reading again, no more.
        release(plane[start * plane.size // elements : stop * plane.size // elements], written=False)

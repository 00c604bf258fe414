"""Norm clipping: no update may move the model further than a bound.

    s = min(1, bound / ‖u‖₂),    u = w − w_t over all trainable floating-point tensors together

An update that is longer is scaled down to the bound before it is folded; its weight in the mean stays. It bounds what a
single learner can do in a round, by accident or on purpose (Sun et al. 2019, arXiv 1911.07963, "norm thresholding").
"""

from __future__ import annotations

import math

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.kernels.norms import squared_norm


class NormClip:
    """The bound, for uploads of one encoding."""

    def __init__(self, bound: float, encoding: Encoding) -> None:
        """`bound`: above 0."""
        self._bound = bound
        self._encoding = encoding

    def scale(self, content: Buffer, base: Buffer | None) -> float:
        """What to multiply an upload's update by, 0 … 1, after one pass over it. `base`: what whole models were trained
        from; updates need none."""
        norm = math.sqrt(self._squared_norm(content, base))
        return 1.0 if norm <= self._bound else self._bound / norm

    def _squared_norm(self, content: Buffer, base: Buffer | None) -> float:
        kinds.require(content, self._encoding.nbytes, "an upload")
        if self._encoding.updates:
            base = None
        elif base is None:
            raise ValueError("how far a model has moved cannot be told without the one that it was trained from")
        return math.fsum(
            squared_norm(encoded, content, None if base is None else encoded.segment.of(base))
            for encoded in self._encoding.segments
            if encoded.differs
        )

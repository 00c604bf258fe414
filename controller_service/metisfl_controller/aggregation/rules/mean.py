"""What all rules of the weighted-mean family share: running sums, scaled and clipped updates, and a server's step.

    w_{t+1} = w_t + step( Σ_k q_k · s_k · u_k / D )        u_k = w_k − w_t

for the tensors that are stepped (trainable floating point), and Σ_k p_k · w_k / Σ_k p_k for all others: running means
and integers are averaged. p_k is an upload's weight, q_k and D are for the rule to say (FedAvg: p_k and Σ p_k), s_k is
its scale after clipping, and `step` a server optimiser's, or nothing.

With c = Σ_k q_k · s_k / D the mean step is also Σ_k (q_k · s_k) · w_k / D − c · w_t. So whole models are summed as they
came, without forming a difference, and what is missing of w_t is added once, at the end: with effective weights
q_k · s_k and a share of 1 − c of the base. FedAvg without scales has c = 1, and needs no base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.aggregation.clipping import NormClip
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.optimizers.optimizer import ServerOptimizer
from metisfl_controller.aggregation.rule import Rule, Staged
from metisfl_controller.aggregation.sums import SegmentSums, Term


@dataclass(frozen=True)
class MeanOptions:
    """`allocate` makes zeroed, 64-byte aligned buffers of a number of bytes for the sums and each mean; it may raise
    OSError."""

    allocate: Callable[[int], Buffer] = aligned_zeros
    clip: NormClip | None = None
    optimizer: ServerOptimizer | None = None


PLAIN = MeanOptions()


class WeightedMean(Rule):
    """Running weighted sums of one round. With K uploads the mean is within (K + 2) · 2^-53 · max |x| of the exact one
    before it is rounded, once, to the tensor's dtype; integers are exact while Σ p_k · |x| stays below 2^53."""

    def __init__(self, encoding: Encoding, options: MeanOptions = PLAIN) -> None:
        """`encoding`: of the uploads."""
        self._encoding = encoding
        self._allocate = options.allocate
        self._clip = options.clip
        self._optimizer = options.optimizer
        self.needs_base = self._clip is not None or self._optimizer is not None
        self._sums = [SegmentSums(encoded, options.allocate) for encoded in encoding.segments]
        self._total = self._stepped_total = 0.0

    def update_weight(self, upload: Staged) -> float:
        """q_k, before scaling."""
        return upload.weight

    def divisor(self) -> float:
        """D, once all uploads of the round have been counted."""
        return self._total

    def count(self, upload: Staged) -> None:
        """One more upload has a part in this round."""
        self._total += upload.weight

    @property
    def total_weight(self) -> float:
        return self._total

    def reset(self) -> None:
        """Forget everything. The sums are overwritten by the next fold."""
        self._total = self._stepped_total = 0.0
        for sums in self._sums:
            sums.empty = True

    def fold(self, uploads: Sequence[Staged], base: Buffer | None = None) -> None:
        """Add uploads; their memory may be reused afterwards. Several at once cost less than one by one."""
        plain, stepped = self._terms(uploads, base)
        for sums in self._sums:
            sums.add(stepped if sums.encoded.differs else plain)

    def finish(self, base: Buffer | None = None, last: Sequence[Staged] = ()) -> Buffer:
        """Add the `last` uploads and return the new model as a buffer of the layout, in one pass over both.

        Nothing can be folded afterwards until `reset`. Raises ValueError when nothing of positive weight was folded, or
        when the result left the range of a tensor's dtype.
        """
        plain, stepped = self._terms(last, base)
        if not self._total > 0:
            raise ValueError("there is nothing to average: no update carried a positive weight")
        layout, divisor = self._encoding.layout, self.divisor()
        if base is not None:
            kinds.require(base, layout.nbytes, "a base")
        model = self._allocate(layout.nbytes)
        for sums in self._sums:
            segment = sums.encoded.segment
            out = segment.of(model)
            if not sums.encoded.differs:
                sums.mean(plain, self._total, out, None, 0.0)
                continue
            share = self._share_of_base(divisor)
            if self._optimizer is not None:
                sums.add(stepped)
                self._optimizer.step(sums, divisor, share - 1.0, segment.of(_needed(base)), out)
            else:
                sums.mean(stepped, divisor, out, segment.of(_needed(base)) if share else None, share)
        return model

    def state(self) -> Mapping[str, Buffer]:
        return {} if self._optimizer is None else self._optimizer.state()

    def restore(self, state: Mapping[str, Buffer]) -> None:
        if self._optimizer is None:
            super().restore(state)
        else:
            self._optimizer.restore(state)

    def _terms(self, uploads: Sequence[Staged], base: Buffer | None) -> tuple[list[Term], list[Term]]:
        """Each upload's part in the sums of averaged segments and of stepped ones."""
        plain, stepped = [], []
        for upload in uploads:
            kinds.require(upload.content, self._encoding.nbytes, "an upload")
            scale = upload.scale
            if self._clip is not None:
                scale *= self._clip.scale(upload.content, base)
            self.count(upload)
            weight = self.update_weight(upload) * scale
            self._stepped_total += weight
            plain.append(Term(upload.content, upload.weight))
            stepped.append(Term(upload.content, weight))
        return plain, stepped

    def _share_of_base(self, divisor: float) -> float:
        """How much of the base to add to the quotient of a stepped segment's sums."""
        return 1.0 if self._encoding.updates else 1.0 - self._stepped_total / divisor


def _needed(base: Buffer | None) -> Buffer:
    if base is None:
        raise ValueError("updates are differences: the model that they were made from is needed")
    return base

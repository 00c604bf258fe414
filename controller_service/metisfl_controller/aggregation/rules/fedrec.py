"""FedRec: the mean of every learner's most recent model, whoever took part in this round.

    w_{t+1} = Σ_k p_k · w_k / Σ_k p_k        over all learners k that have ever contributed, each with its last w_k, p_k
                                             (MetisFL's recency rule: Stripelis et al. 2023, arXiv 2311.00334)

A learner's new model takes the place of its previous one; the model of a learner that has left stays. So a round with
few participants does not forget the others, and when learners come one at a time each moves the model by its share.

The sums are kept from round to round and corrected: what is replaced is subtracted and what is new is added, a pass
over two models. Each of these steps rounds by at most 2^-53 · S, where S = Σ_k p_k · max |w_k| at that time, and what a
large model has left behind stays when it is replaced by a small one. So each step is counted as the number of today's
steps that may round as much, S then / S now; after 2 · `recompute_every` of them, two for each replacement, the sums
are made anew from the files, in the order of the learners' names. The mean is always within
(2 · recompute_every + K + 2) · 2^-53 · S / Σ p of the exact one, for each segment by its own S.

A model is w_k as uploaded, clipped and scaled (w_t + s · u_k) where that is asked for; where learners upload updates,
it is w_t + u_k, rounded to the tensor's dtype. Each is a file of the state directory as long as it counts, and counts
once the version that it went into is committed. Of a round that is not, nothing remains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer
from metisfl_controller.aggregation.contributions import Contributions
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.rule import FUSED, Staged
from metisfl_controller.aggregation.rules.mean import PLAIN, MeanOptions, WeightedMean
from metisfl_controller.aggregation.sums import Term, largest_of, write_scaled

_MANIFEST = "contributions"


class FedRec(WeightedMean):
    """Sums of whole models, which outlive the round."""

    def __init__(
        self,
        encoding: Encoding,
        contributions: Contributions,
        options: MeanOptions = PLAIN,
        *,
        recompute_every: int = 1000,
    ) -> None:
        """`encoding`: of the uploads. `recompute_every`: replacements after which the sums are made anew; 0: always."""
        super().__init__(Encoding(encoding.layout, Codec.FLOAT32), replace(options, clip=None))
        self._uploads = encoding
        self._clip = options.clip
        self.needs_base = self.needs_base or self._clip is not None or encoding.updates
        self._contributions = contributions
        self._recompute_every = recompute_every
        self._rounded = np.zeros(len(self._sums))
        """Of each segment, Σ S over the steps since the sums were made anew."""
        self._bound = np.zeros(len(self._sums))
        """S, kept up within a round: what it then is short of has been counted in `_rounded` as it was."""
        self._committed = self._stored = np.frombuffer(b"{}", np.uint8)
        """The manifests of the newest version, and of the newest that a file keeps."""
        self._finished = True
        """Nothing was folded that is not part of `_committed`."""

    def reset(self) -> None:
        """Begin a round: the one before is committed, or else what it folded is forgotten."""
        if not self._finished:
            self._contributions.restore(self._committed)
            self._recompute()
        self._contributions.remove_all_but(self._committed, self._stored)

    def fold(self, uploads: Sequence[Staged], base: Buffer | None = None) -> None:
        """Put these models in the place of their learners' previous ones. Raises OSError when the disk has no room."""
        terms = []
        for upload in uploads:
            self._finished = False
            kinds.require(upload.content, self._uploads.nbytes, "an upload")
            if (replaced := self._contributions.get(upload.learner)) is not None:
                terms.append(self._term(upload.learner, -1.0))
                self._rounded += self._bound
                self._bound = np.maximum(self._bound - replaced.weight * np.array(replaced.largest), 0.0)
            model = self._whole(upload, base)
            largest = [largest_of(sums.encoded.segment.of(model)) for sums in self._sums]
            self._contributions.put(upload.learner, model, upload.weight, largest)
            terms.append(self._term(upload.learner, 1.0))
            self._bound += upload.weight * np.array(largest)
            self._rounded += self._bound
        for sums in self._sums:
            sums.add(terms)

    def finish(self, base: Buffer | None = None, last: Sequence[Staged] = ()) -> Buffer:
        """As `WeightedMean.finish`; files of the models that the result is made of are durable when it returns."""
        self.fold(last, base)
        self._bound = self._largest_sums()
        # Where all values are 0, such as the count of a frozen BatchNorm, nothing rounds.
        worn = (self._rounded > 0) & (self._rounded >= 2 * self._recompute_every * self._bound)
        if self._recompute_every == 0 or worn.any():
            self._recompute()
        self._total = self._stepped_total = math.fsum(self._contributions.weights)
        model = super().finish(base)
        self._committed = self._contributions.sync()
        self._finished = True
        return model

    def state(self) -> Mapping[str, Buffer]:
        self._stored = self._committed
        return {_MANIFEST: self._committed, **super().state()}

    def restore(self, state: Mapping[str, Buffer]) -> None:
        """Raises OSError or ValueError when a file is missing or damaged."""
        moments = dict(state)
        if _MANIFEST not in moments:
            raise ValueError("FedRec's state names the learners' last models, and this one does not")
        self._committed = self._stored = moments.pop(_MANIFEST)
        super().restore(moments)
        self._contributions.restore(self._committed)
        self._contributions.check()
        self._recompute()

    def _whole(self, upload: Staged, base: Buffer | None) -> Buffer:
        """The model that an upload stands for."""
        scale = upload.scale * (1.0 if self._clip is None else self._clip.scale(upload.content, base))
        if scale == 1.0 and not self._uploads.updates:
            return upload.content
        if base is None:
            raise ValueError("updates are differences: the model that they were made from is needed")
        model = self._allocate(self._uploads.layout.nbytes)
        for encoded in self._uploads.segments:
            out = encoded.segment.of(model)
            if encoded.differs:
                share = 1.0 if self._uploads.updates else 1.0 - scale
                write_scaled(encoded, upload.content, scale, out, encoded.segment.of(base), share)
            else:
                out[...] = encoded.raw(upload.content)
        return model

    def _term(self, learner: str, sign: float) -> Term:
        """A learner's last model, to be added or taken away."""
        return Term(self._contributions.model(learner), sign * self._contributions[learner].weight)

    def _recompute(self) -> None:
        """Make the sums of what is kept, in the order of the learners' names."""
        for sums in self._sums:
            sums.empty = True
        learners = self._contributions.learners
        for start in range(0, len(learners), FUSED):
            batch = learners[start : start + FUSED]
            terms = [self._term(learner, 1.0) for learner in batch]
            for sums in self._sums:
                sums.add(terms)
        self._bound = self._largest_sums()
        self._rounded[:] = 0

    def _largest_sums(self) -> NDArray[np.float64]:
        """S of each segment."""
        return np.array(self._contributions.weighted_largest(len(self._sums)))

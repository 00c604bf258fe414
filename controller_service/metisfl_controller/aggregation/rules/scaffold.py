"""SCAFFOLD: control variates take out of each learner's steps what leads away from the common optimum.

    learner k, after K_k steps y ← y − η · (g_k(y) − c_k + c) from x:
        c_k⁺ = c_k − c + (x − y_k) / (K_k · η),   Δc_k = c_k⁺ − c_k
    server:
        x ← x + Σ_S p_k · (y_k − x) / Σ_S p_k
        c ← (P · c + Σ_S p_k · Δc_k) / P⁺
                                                (Karimireddy et al. 2020, arXiv 1910.06378, algorithm 1, option II)

S are the round's learners and p_k their weights; P sums the weights of all learners that had a part in c before, P⁺
with those of this round. So c is always Σ p_k · c_k / Σ p_k over the learners seen so far, and the corrections c − c_k
add up to nothing. With equal weights, and once all N learners were seen, the last line is the paper's
c ← c + |S| / N · mean Δc. The paper's global step size η_g is a server optimiser's: Momentum with momentum 0.

That sum only holds while nobody forgets its c_k. Each update says, in its stamp, from which variate its Δc_k leads on.
When that is not the one that is part of c (a learner lost its state, or its upload counted and it never heard of that),
or when a weight changed, all begin anew after the round: c = 0 and another generation, in which every c_k is 0 as well.
It costs what the variates had learned. Going on would leave the lost c_k in c for good, a bias on every later step.
A learner that leaves for good keeps its part in c, as in the paper.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from metisfl.logs import ContextLogger
from metisfl.wire.control import Stamp
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl.wire.sections import Sections
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.rule import Rule, Staged
from metisfl_controller.aggregation.rules.mean import WeightedMean
from metisfl_controller.aggregation.sums import SegmentSums, Term

_VARIATE, _LEARNERS = "control", "control_learners"
"""Names in the rule's state: c with its stamp, and who has a part in it, as JSON."""


@dataclass(frozen=True)
class Part:
    """A learner's part in c: its weight, and the stamp's number of its c_k."""

    weight: float
    number: int


@dataclass
class _Round:
    """Who has uploaded, and whose change does not lead on from what is part of c."""

    parts: dict[str, Part] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


class Scaffold(Rule):
    """`mean` makes the model; this makes c, float64 sums rounded once, for each trainable floating-point tensor."""

    def __init__(
        self,
        mean: WeightedMean,
        uploads: Sections,
        log: ContextLogger,
        allocate: Callable[[int], Buffer] = aligned_zeros,
    ) -> None:
        """`uploads`: with a control section. `allocate` as for `mean`."""
        assert uploads.control is not None
        self.needs_base = mean.needs_base
        self._mean = mean
        self._uploads = uploads
        self._control = uploads.control
        self._log = log
        self._allocate = allocate
        self._sums = [SegmentSums(encoded, allocate) for encoded in self._control.segments if encoded.differs]
        self._parts: dict[str, Part] = {}
        self._round = _Round()
        self._variate = self._zero(generation=1)

    def reset(self) -> None:
        self._mean.reset()
        self._round = _Round()
        for sums in self._sums:
            sums.empty = True

    def fold(self, uploads: Sequence[Staged], base: Buffer | None = None) -> None:
        self._mean.fold(uploads, base)
        terms = self._terms(uploads)
        for sums in self._sums:
            sums.add(terms)

    def finish(self, base: Buffer | None, last: Sequence[Staged]) -> Buffer:
        model = self._mean.finish(base, last)
        terms = self._terms(last)
        if self._round.broken:
            self._begin_anew()
        else:
            self._advance(terms)
        return model

    def control(self) -> Buffer:
        """c with its stamp. It is not written to any more."""
        return self._variate

    def state(self) -> Mapping[str, Buffer]:
        parts = {learner: [part.weight, part.number] for learner, part in self._parts.items()}
        learners = np.frombuffer(json.dumps(parts).encode(), np.uint8)
        return {**self._mean.state(), _VARIATE: self._variate, _LEARNERS: learners}

    def restore(self, state: Mapping[str, Buffer]) -> None:
        rest = dict(state)
        variate, learners = rest.pop(_VARIATE, None), rest.pop(_LEARNERS, None)
        if variate is None or learners is None or variate.size != self._control.nbytes:
            raise ValueError(f"the state holds {', '.join(state) or 'nothing'}, and no control variate of this model")
        self._mean.restore(rest)
        self._variate = variate
        parts = json.loads(learners.tobytes())
        self._parts = {learner: Part(weight, number) for learner, (weight, number) in parts.items()}

    def _terms(self, uploads: Sequence[Staged]) -> list[Term]:
        """Each upload's part in the sums, once its stamp has been looked at."""
        terms = []
        for upload in uploads:
            kinds.require(upload.content, self._uploads.nbytes, "an upload")
            *_, (_, _, change) = self._uploads.of_place(upload.content)
            stamp = Stamp.of(self._control.layout, change)
            if not self._leads_on(upload, stamp):
                self._round.broken.append(upload.learner)
            self._round.parts[upload.learner] = Part(upload.weight, stamp.number)
            terms.append(Term(change, upload.weight))
        return terms

    def _leads_on(self, upload: Staged, stamp: Stamp) -> bool:
        known = self._parts.get(upload.learner)
        expected = (self._generation, 0 if known is None else known.number)
        return (stamp.generation, stamp.previous) == expected and known in (None, Part(upload.weight, stamp.previous))

    @property
    def _generation(self) -> int:
        return Stamp.of(self._control.layout, self._variate).generation

    def _advance(self, terms: Sequence[Term]) -> None:
        before = sum(part.weight for part in self._parts.values())
        self._parts |= self._round.parts
        total = sum(part.weight for part in self._parts.values())
        variate = self._zero(self._generation)
        for sums in self._sums:
            segment = sums.encoded.segment
            sums.mean(terms, total, segment.of(variate), segment.of(self._variate), before / total)
        self._variate = variate

    def _begin_anew(self) -> None:
        self._log.warning(
            "control variates begin at zero again: those of %s are not the ones that the global one is made of, as "
            "their state was lost or their weight changed",
            ", ".join(self._round.broken),
        )
        self._parts = {}
        self._variate = self._zero(self._generation + 1)

    def _zero(self, generation: int) -> Buffer:
        variate = self._allocate(self._control.nbytes)
        Stamp(generation).write(self._control.layout, variate)
        return variate

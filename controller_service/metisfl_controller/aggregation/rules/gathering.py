"""What the robust rules share: they need all uploads of a round at once, and do not trust them.

Weights are sizes that learners report of themselves, so an attacker could claim any; but for the geometric median,
whose paper weights, the robust rules count every upload once. An upload of weight 0 was trained on nothing and has no
voice in any of them. Non-finite uploads have been refused before.

With `d` the elements of a model and K the uploads, each rule's docstring says what it costs in *passes*: one reads all
K uploads once, tile by tile, from memory or from files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.aggregation.gathered import Gathered
from metisfl_controller.aggregation.kernels import kinds
from metisfl_controller.aggregation.rule import Rule, Staged


class GatheringRule(Rule):
    """`aggregate` makes a model of all of a round's uploads."""

    gathers: ClassVar[bool] = True

    compares: ClassVar[bool] = False
    """Whether updates are compared as vectors, which takes the base also when uploads are whole models: any other
    origin would be an upload, and one that an attacker put far away would drown the others' differences in rounding."""

    def __init__(self, encoding: Encoding, *, allocate: Callable[[int], Buffer] = aligned_zeros) -> None:
        """`encoding`: of the uploads. `allocate` makes zeroed, 64-byte aligned buffers of a number of bytes for new
        models; it may raise OSError."""
        self._encoding = encoding
        self._allocate = allocate
        self.needs_base = self.compares

    def reset(self) -> None:
        """Nothing is kept from one round to the next."""

    def finish(self, base: Buffer | None, last: Sequence[Staged]) -> Buffer:
        """The new model. Raises ValueError when there are fewer uploads than the rule needs, or when a result leaves
        the range of its dtype."""
        voices = [upload for upload in last if upload.weight > 0]
        if len(voices) < self.minimum:
            raise ValueError(
                f"{type(self).__name__} needs {self.minimum} updates of positive weight here, and has {len(voices)}"
            )
        if any(upload.scale != 1.0 for upload in voices):
            raise ValueError(f"{type(self).__name__} compares whole updates, and was given some to scale down")
        for upload in voices:
            kinds.require(upload.content, self._encoding.nbytes, "an upload")
        if base is not None:
            kinds.require(base, self._encoding.layout.nbytes, "a base")
        model = self._allocate(self._encoding.layout.nbytes)
        contents = [upload.content for upload in voices]
        self.aggregate(Gathered(self._encoding, contents, base), [upload.weight for upload in voices], model)
        return model

    @property
    def minimum(self) -> int:
        """Uploads without which there is no result."""
        return 1

    @abstractmethod
    def aggregate(self, uploads: Gathered, weights: Sequence[float], model: Buffer) -> None:
        """Write all tensors of the new model; `weights` are the uploads', above 0."""

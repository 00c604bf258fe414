"""What an aggregation rule is to the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from metisfl.wire.layout import Buffer

FUSED = 8
"""Uploads that are folded together at most: more would gain little, and hold their memory for longer."""


@dataclass(frozen=True)
class Staged:
    """A verified upload in its encoded form."""

    content: Buffer
    weight: float
    """Finite, not negative."""

    learner: str = ""
    """Whose it is."""

    steps: int = 1
    """Steps of local training it took, τ in papers: batches."""

    scale: float = 1.0
    """What the update (trained model − base) is multiplied by, 0 … 1, such as a discount for staleness. It is the
    update that becomes smaller, and not its weight in a mean."""


class Rule(ABC):
    """One round at a time: `reset`, any number of `fold`, `finish`. Everything is called from the engine's thread.

    The `base` is the model that the round's learners trained from, a flat buffer of the layout; None where uploads are
    whole models and the rule does not ask for it.
    """

    gathers: ClassVar[bool] = False
    """All uploads are kept, in memory or in files, until `finish` gets them as `last`, in their learners' order;
    `fold` is not called."""

    needs_base: bool = False
    """Whether the base is wanted also when uploads are whole models; it costs the memory of one more model."""

    models_per_pass: int = FUSED
    """How many uploads `fold` is given at most."""

    @abstractmethod
    def reset(self) -> None:
        """Begin a round; what an abandoned one has left is forgotten."""

    def fold(self, uploads: Sequence[Staged], base: Buffer | None = None) -> None:
        """Add uploads; their memory may be reused afterwards."""
        raise NotImplementedError(f"{type(self).__name__} gathers uploads, or folds them itself")

    @abstractmethod
    def finish(self, base: Buffer | None, last: Sequence[Staged]) -> Buffer:
        """Add the `last` uploads and return the new model. Raises ValueError when there is none to return."""

    def state(self) -> Mapping[str, Buffer]:
        """Arrays that belong to the version just finished, such as an optimiser's moments: stored with it, and given
        back to `restore` by a controller that starts again."""
        return {}

    def control(self) -> Buffer | None:
        """The section `control` that travels to learners with the version just finished, encoded; None where there is
        none. It is not written to afterwards."""
        return None

    def restore(self, state: Mapping[str, Buffer]) -> None:
        """Go on from a stored version. Raises ValueError for a state that is not this rule's."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, and was given {', '.join(state)}")

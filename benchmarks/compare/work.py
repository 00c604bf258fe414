"""The work that every system is given, in a form that travels to the process that does it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Work:
    """`learners` models of float32 tensors with these `shapes`.

    `repetitions` count, after one that warms up: aggregations of the same models, or rounds.
    """

    learners: int
    parameters: int
    """As asked for; the layout's shapes hold about as many."""
    layout: str
    shapes: Shapes
    repetitions: int
    seconds: float = 240.0
    """A round benchmark is given up after this long, start included."""

    @property
    def elements(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def model_bytes(self) -> int:
        return 4 * self.elements

    @property
    def name(self) -> str:
        return size_name(self.learners, self.parameters)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Work:
        fields = json.loads(text)
        return cls(**{**fields, "shapes": tuple(tuple(shape) for shape in fields["shapes"])})


def size_name(learners: int, parameters: int) -> str:
    """Such as 25 × 10M."""
    return f"{learners} × {_short(parameters)}"


def _short(count: int) -> str:
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return str(count)

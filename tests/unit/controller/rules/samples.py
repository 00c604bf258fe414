"""Random models of many kinds of tensors, and what a rule should make of them, in plain float64 NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout, Segment, is_float
from metisfl.wire.segments import EncodedSegment, Form
from metisfl_controller.aggregation.rule import Staged

FLOATS = ("float16", "bfloat16", "float32", "float64")
FROZEN = "running"

Arrays = dict[str, np.ndarray]


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def stepped(layout: Layout) -> list[str]:
    """Tensors that a part of an update, or an optimiser's step, makes sense for."""
    return [t.name for t in layout.tensors if t.trainable and is_float(dtype_of(t.dtype))]


@dataclass
class Round:
    """One round's base and uploads: tensor `w` of `dtype` and `size`, and beside it an empty one, a scalar, one that is
    not trainable, and integers. With a lossy codec uploads are updates anyway."""

    rng: np.random.Generator
    codec: Codec
    dtype: str
    size: int
    count: int
    scaled: bool = False
    updates: bool = False
    base: Arrays | None = None

    def __post_init__(self) -> None:
        self.updates = self.updates or not self.codec.lossless
        start = self.model() if self.base is None else self.base
        self.layout = Layout.of(start, frozen=[FROZEN])
        self.encoding = Encoding(self.layout, self.codec, 0.1, self.updates)
        self.start = start
        self.models = [self.model() for _ in range(self.count)]

    def model(self) -> Arrays:
        rng = self.rng
        return {
            "w": rng.standard_normal(self.size).astype(dtype_of(self.dtype)),
            "empty": np.zeros((0, 3), np.float32),
            "bias": np.array(rng.standard_normal(), np.float32),
            FROZEN: rng.standard_normal(5).astype(np.float32),
            "n": rng.integers(-1000, 1000, 7),
        }

    @cached_property
    def whole(self) -> Buffer:
        return self.layout.pack(self.start)

    @cached_property
    def uploads(self) -> list[Staged]:
        base = self.whole if self.updates else None
        contents = [
            self.encoding.encode(self.layout.pack(model), into=np.zeros(self.encoding.nbytes, np.uint8), base=base)
            for model in self.models
        ]
        return [
            Staged(
                content=content,
                weight=float(self.rng.integers(1, 100)),
                learner=f"a-{number}",
                steps=int(self.rng.integers(1, 50)),
                scale=float(self.rng.random()) if self.scaled else 1.0,
            )
            for number, content in enumerate(contents)
        ]

    def change(self, upload: Staged) -> Arrays:
        """What an upload says that training changed, of the stepped tensors, in float64."""
        changes: Arrays = {}
        for part in self.encoding.segments:
            names = [name for name in stepped(self.layout) if (self.start[name].dtype, True) == _kind(part.segment)]
            values, at = _values(part, upload.content), 0
            for name in names:
                base = self.start[name].astype(np.float64)
                change = values[at : at + base.size].reshape(base.shape)
                changes[name] = change if self.updates else change - base
                at += base.size
        return changes

    def norm(self, upload: Staged) -> float:
        return float(np.sqrt(sum((change**2).sum() for change in self.change(upload).values())))

    def averaged(self) -> Arrays:
        """The tensors that are not stepped: plain weighted means, integers rounded."""
        weights = [upload.weight for upload in self.uploads]
        means = {
            name: np.average([model[name].astype(np.float64) for model in self.models], axis=0, weights=weights)
            for name in (FROZEN, "n")
        }
        return {FROZEN: means[FROZEN], "n": np.rint(means["n"])}

    def check(self, got: Buffer, changes: Arrays, others: Arrays | None = None, *, slack: float = 1e-13) -> None:
        """`got` is the base plus `changes` of the stepped tensors, and the mean of the others, or what they should be,
        each rounded once. `slack`: for the arithmetic, of each model and relative to the value or 1."""
        views = self.layout.views(got)
        expected = {name: self.start[name].astype(np.float64) + change for name, change in changes.items()}
        for name, wanted in (expected | (self.averaged() if others is None else others)).items():
            found = views[name]
            nearest = np.abs(wanted.astype(found.dtype).astype(np.float64) - wanted)
            scale = np.maximum(1.0, np.abs(wanted))
            assert (np.abs(found.astype(np.float64) - wanted) <= nearest + slack * self.count * scale).all(), name
        assert views["empty"].shape == (0, 3)


def _kind(segment: Segment) -> tuple[np.dtype, bool]:
    return segment.dtype, segment.trainable


def _values(part: EncodedSegment, content: Buffer) -> np.ndarray:
    """A segment's numbers as encoded, in float64."""
    match part.form:
        case Form.RAW:
            return part.raw(content).astype(np.float64)
        case Form.BFLOAT16:
            return part.halves(content).view(ml_dtypes.bfloat16).astype(np.float64)
        case Form.FLOAT16:
            return part.halves(content).view(np.float16).astype(np.float64)
        case Form.INT8:
            scales = np.repeat(part.scales(content), 64)[: part.segment.elements]
            return (part.codes(content).astype(np.float32) * scales).astype(np.float64)
        case Form.TOPK:
            values = np.zeros(part.segment.elements)
            values[part.indices(content)] = part.values(content)
            return values

"""The named sections of a transfer: announced together in its header, and accepted together or not at all.

They follow each other on the wire. In memory they lie in one contiguous place, each from a 64-byte border on, so that
one slot holds an upload whatever it consists of; the model is the first, at the very beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from metisfl.proto.v1 import model_pb2
from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, aligned

MODEL_SECTION = "model"
CONTROL_SECTION = "control"
"""SCAFFOLD's control variates: the global one on the way down, a learner's change on the way up (`wire.control`)."""


@dataclass(frozen=True)
class Sections:
    """Names and encodings, in order; the model first."""

    encodings: tuple[tuple[str, Encoding], ...]

    @classmethod
    def of(cls, model: Encoding, control: Encoding | None = None) -> Sections:
        beside = () if control is None else ((CONTROL_SECTION, control),)
        return cls(((MODEL_SECTION, model), *beside))

    @property
    def model(self) -> Encoding:
        return self.encodings[0][1]

    @property
    def control(self) -> Encoding | None:
        return dict(self.encodings).get(CONTROL_SECTION)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.encodings]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each section."""
        return tuple(encoding.nbytes for _, encoding in self.encodings)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each section begins in a place that holds all."""
        starts, offset = [], 0
        for nbytes in self.sizes:
            starts.append(offset)
            offset = aligned(offset + nbytes)
        return tuple(starts)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of a place that holds all, gaps included."""
        return self.starts[-1] + self.sizes[-1]

    def of_place(self, place: Buffer) -> Iterator[tuple[str, Encoding, Buffer]]:
        """Each section with its encoded bytes, as a view of a place that holds all."""
        for (name, encoding), start, nbytes in zip(self.encodings, self.starts, self.sizes, strict=True):
            yield name, encoding, place[start : start + nbytes]

    def announce(self) -> list[model_pb2.Section]:
        """What a transfer's header says."""
        return [encoding.section(name) for name, encoding in self.encodings]

    def mismatch(self, announced: Sequence[model_pb2.Section]) -> str | None:
        """How a header's sections differ from these in anything but their layouts; None when they do not."""
        names = [section.name for section in announced]
        if names != self.names:
            expected, got = (", ".join(f"'{name[:40]}'" for name in each[:5]) for each in (self.names, names))
            return f"expected section {expected}, got {got or 'none'}"
        for (name, encoding), section in zip(self.encodings, announced, strict=True):
            if problem := encoding.mismatch(section):
                return problem if name == MODEL_SECTION else f"section '{name}': {problem}"
        return None

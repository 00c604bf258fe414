"""A segment of a layout inside an encoded section: its form, and views of its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.layout import Buffer, Segment, aligned, is_float
from metisfl.wire.narrowing import BLOCK


class Form(StrEnum):
    """What a segment has become inside an encoded section."""

    RAW = "Raw"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    INT8 = "Int8"
    TOPK = "TopK"


@dataclass(frozen=True)
class EncodedSegment:
    """Where one segment of a layout lies in an encoded section, and in which form.

    `offset` (64-byte aligned) and `nbytes` count in bytes of the section. Views are of a section's bytes:
    RAW `raw`, dtype of the segment, (elements,) · BFLOAT16 and FLOAT16 `halves`, uint16, (elements,) · INT8 `codes`,
    int8, (elements,) and `scales`, float32, (ceil(elements / 64),) · TOPK `indices`, uint32, strictly increasing, and
    `values`, float32, both (kept,).
    """

    segment: Segment
    form: Form
    offset: int
    nbytes: int
    kept: int = 0
    """TOPK: how many values are kept."""

    @property
    def differs(self) -> bool:
        """Whether an update holds differences here, and not whole values."""
        return self.segment.trainable and is_float(self.segment.dtype)

    @property
    def blocks(self) -> int:
        """INT8: how many scales there are."""
        return -(-self.segment.elements // BLOCK)

    def raw(self, content: Buffer) -> NDArray[np.generic]:
        return content[self.offset : self.offset + self.nbytes].view(self.segment.dtype)

    def halves(self, content: Buffer) -> NDArray[np.uint16]:
        return content[self.offset : self.offset + self.nbytes].view(np.uint16)

    def codes(self, content: Buffer) -> NDArray[np.int8]:
        return content[self.offset : self.offset + self.segment.elements].view(np.int8)

    def scales(self, content: Buffer) -> NDArray[np.float32]:
        return self._second_plane(content, self.segment.elements, self.blocks, np.float32)

    def indices(self, content: Buffer) -> NDArray[np.uint32]:
        return content[self.offset : self.offset + 4 * self.kept].view(np.uint32)

    def values(self, content: Buffer) -> NDArray[np.float32]:
        return self._second_plane(content, 4 * self.kept, self.kept, np.float32)

    def _second_plane(self, content: Buffer, first_nbytes: int, elements: int, dtype: type[Any]) -> NDArray[Any]:
        start = self.offset + aligned(first_nbytes)
        return content[start : start + 4 * elements].view(dtype)


def encoded_nbytes(form: Form, segment: Segment, kept: int) -> int:
    """`kept`: values of TOPK."""
    match form:
        case Form.RAW:
            return segment.nbytes
        case Form.BFLOAT16 | Form.FLOAT16:
            return 2 * segment.elements
        case Form.INT8:
            return aligned(segment.elements) + 4 * -(-segment.elements // BLOCK)
        case Form.TOPK:
            return aligned(4 * kept) + 4 * kept

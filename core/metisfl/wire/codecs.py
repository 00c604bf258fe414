"""How a model's segments are encoded for the wire, and what that costs in accuracy.

An *encoding* is a codec applied to a layout. It says where the encoded form of each segment lies in the section that
travels, and it is pure: both sides derive the same one. Only trainable floating-point segments wider than the codec
are narrowed; integers, booleans, tensors that are not trainable, and what is narrow already travel as they are (RAW).

Float32 is lossless: every segment is RAW, and the section of a model equals its flat buffer. With any other codec the
learner uploads its *update*, local − model as received, so that what is lost is lost of a small difference; with
Float32 it may be asked to. In an update trainable floating-point segments hold differences, whatever their form, and
all others whole values. Sections are planar and every plane starts on a 64-byte border, so that kernels read
them in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from metisfl.proto.v1 import model_pb2
from metisfl.wire import narrowing
from metisfl.wire.layout import Buffer, Layout, Segment, aligned, aligned_zeros, is_float
from metisfl.wire.narrowing import BLOCK, Floats
from metisfl.wire.segments import EncodedSegment, Form, encoded_nbytes

MAX_TOPK_ELEMENTS = 1 << 32
"""Indices of TopK have 32 bits."""


class CodecError(ValueError):
    """A codec that does not fit the model, or encoded bytes that no encoder wrote."""


class Codec(StrEnum):
    """The codecs of `spec.transport.codec`. |x| is the magnitude of the value itself, so of a difference in an upload.

    Float32   tensors in their own dtype; exact.
    BFloat16  16 bits of floating point, to nearest even: within 2^-8·|x| (2^-134 below 2^-126); the range of float32.
    Float16   16 bits of floating point, to nearest even: within 2^-11·|x| from 2^-14 on, within 2^-25 below. Beyond
              ±65504 (65520 before rounding) a value becomes infinite, and whoever encoded it must refuse that.
    Int8      8 bits and a float32 scale for each 64 consecutive elements, scale = max|x| / 127: within
              scale·(1/2 + 2^-16) of each value. A block whose max|x| is below 127·2^-126 becomes zero.
    TopK      the `fraction` of a segment's elements with the largest magnitudes, in float32; the others become zero
              and are what error feedback at the learner carries over to its next upload. Of equal magnitudes the
              first are kept. Uploads only: models go down in Float32.

    float64 is rounded to float32 first. NaN and infinity stay visible: as themselves, and in Int8 as a scale of NaN.
    """

    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    INT8 = "Int8"
    TOPK = "TopK"

    @property
    def lossless(self) -> bool:
        return self is Codec.FLOAT32

    @property
    def for_downloads(self) -> Codec:
        """The codec that global models travel in where uploads have this one."""
        return Codec.FLOAT32 if self is Codec.TOPK else self

    @property
    def number(self) -> model_pb2.Codec.ValueType:
        """The codec in messages."""
        return _NUMBERS[self]

    @classmethod
    def of(cls, number: int) -> Codec:
        """Raises CodecError for a number that no codec of this release has."""
        for codec, known in _NUMBERS.items():
            if known == number:
                return codec
        raise CodecError(f"codec {number} is unknown; known: {', '.join(_NUMBERS)}")


_NUMBERS: dict[Codec, model_pb2.Codec.ValueType] = {
    Codec.FLOAT32: model_pb2.CODEC_FLOAT32,
    Codec.BFLOAT16: model_pb2.CODEC_BFLOAT16,
    Codec.FLOAT16: model_pb2.CODEC_FLOAT16,
    Codec.INT8: model_pb2.CODEC_INT8,
    Codec.TOPK: model_pb2.CODEC_TOPK,
}


@dataclass(frozen=True)
class Encoding:
    """A codec applied to a layout. `fraction` (0 … 1) is what TopK keeps of each segment; others ignore it.

    Raises CodecError when TopK meets a segment of more than 2^32 elements.
    """

    layout: Layout
    codec: Codec
    fraction: float = 0.1
    updates: bool = False
    """What is encoded are updates: differences to a base where `EncodedSegment.differs`, whole values elsewhere."""

    def __post_init__(self) -> None:
        if self.codec is not Codec.TOPK:
            return
        if not 0 < self.fraction <= 1:
            raise CodecError(f"TopK keeps a fraction above 0 and up to 1, not {self.fraction}")
        if any(segment.elements > MAX_TOPK_ELEMENTS for segment in self.layout.segments):
            raise CodecError(f"TopK takes segments of up to {MAX_TOPK_ELEMENTS} elements; choose another codec")

    @cached_property
    def segments(self) -> tuple[EncodedSegment, ...]:
        encoded, offset = [], 0
        for segment in self.layout.segments:
            form = self._form(segment)
            kept = self._kept(segment.elements) if form is Form.TOPK else 0
            encoded.append(EncodedSegment(segment, form, offset, encoded_nbytes(form, segment, kept), kept))
            offset = aligned(offset + encoded[-1].nbytes)
        return tuple(encoded)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the encoded section."""
        last = self.segments[-1]
        return last.offset + last.nbytes

    def encode(self, model: Buffer, into: Buffer | None = None, base: Buffer | None = None) -> Buffer:
        """The section for a model, or, with `base`, for the update model − base (whole values where none `differs`).

        `model` and `base` are flat buffers of the layout; `into` has at least `nbytes` bytes, and its padding is left
        as it is. Without `into`, Float32 returns a `model` itself; all else is a new buffer.
        """
        if into is None:
            if self.codec is Codec.FLOAT32 and base is None:
                return model
            into = aligned_zeros(self.nbytes)
        for encoded in self.segments:
            floats = Floats(
                encoded.segment.of(model), encoded.segment.of(base) if base is not None and encoded.differs else None
            )
            match encoded.form:
                case Form.RAW:
                    narrowing.to_raw(floats, encoded.raw(into))
                case Form.BFLOAT16:
                    narrowing.to_bfloat16(floats, encoded.halves(into))
                case Form.FLOAT16:
                    narrowing.to_float16(floats, encoded.halves(into))
                case Form.INT8:
                    narrowing.to_int8(floats, encoded.codes(into), encoded.scales(into))
                case Form.TOPK:
                    narrowing.to_topk(floats, encoded.indices(into), encoded.values(into))
        return into

    def decode(self, content: Buffer, into: Buffer | None = None) -> Buffer:
        """The model, or update, that a section holds, as a flat buffer of the layout.

        Without `into`, Float32 returns `content` itself and every other codec a new buffer. Indices of TopK must have
        been checked (`problem`).
        """
        if into is None:
            if self.codec is Codec.FLOAT32:
                return content
            into = self.layout.allocate()
        for encoded in self.segments:
            out = encoded.segment.of(into)
            match encoded.form:
                case Form.RAW:
                    out[...] = encoded.raw(content)
                case Form.BFLOAT16:
                    narrowing.from_bfloat16(encoded.halves(content), out)
                case Form.FLOAT16:
                    narrowing.from_float16(encoded.halves(content), out)
                case Form.INT8:
                    narrowing.from_int8(encoded.codes(content), encoded.scales(content), out)
                case Form.TOPK:
                    narrowing.from_topk(encoded.indices(content), encoded.values(content), out)
        return into

    def flaw(self, content: Buffer) -> str | None:
        """Why a section cannot be used: a value that is not finite, or indices of TopK that do not rise or are out of
        range. None when all is well. A finite model that has a flaw once encoded is beyond the codec's range."""
        for encoded in self.segments:
            if encoded.form is Form.TOPK and not narrowing.rising(encoded.indices(content), encoded.segment.elements):
                return f"the indices of TopK do not rise strictly within {encoded.segment.elements} elements"
            at = self._not_finite(encoded, content)
            if at is not None:
                return f"tensor '{self.layout.tensor_at(encoded.segment, at)}' holds NaN or infinity"
        return None

    def section(self, name: str) -> model_pb2.Section:
        """What a transfer's header says about a section with this encoding."""
        return model_pb2.Section(
            name=name,
            layout=self.layout.to_proto(),
            codec=self.codec.number,
            encoded_bytes=self.nbytes,
            kept=self.kept,
        )

    @property
    def kept(self) -> list[int]:
        """How many values are kept of each TOPK segment, in order."""
        return [encoded.kept for encoded in self.segments if encoded.form is Form.TOPK]

    def mismatch(self, section: model_pb2.Section) -> str | None:
        """How a header's section differs from this encoding in anything but the layout; None when it does not."""
        if section.codec != self.codec.number:
            return f"codec {section.codec} was not agreed on at Join, which was {self.codec} ({self.codec.number})"
        if list(section.kept) != self.kept:
            return f"{list(section.kept)[:5]} values are kept, and TopK of {self.fraction:g} keeps {self.kept[:5]}"
        if section.encoded_bytes != self.nbytes:
            return f"{section.encoded_bytes} bytes are declared, its layout has {self.nbytes} in codec {self.codec}"
        return None

    def _not_finite(self, encoded: EncodedSegment, content: Buffer) -> int | None:
        """The first element that is not finite."""
        match encoded.form:
            case Form.RAW if is_float(encoded.segment.dtype):
                return narrowing.first_not_finite(encoded.raw(content))
            case Form.BFLOAT16:
                return narrowing.first_not_finite(encoded.halves(content).view(narrowing.BFLOAT16))
            case Form.FLOAT16:
                return narrowing.first_not_finite(encoded.halves(content).view(np.float16))
            case Form.INT8:
                block = narrowing.first_not_finite(encoded.scales(content))
                return None if block is None else block * BLOCK
            case Form.TOPK:
                position = narrowing.first_not_finite(encoded.values(content))
                return None if position is None else int(encoded.indices(content)[position])
            case _:
                return None

    def _form(self, segment: Segment) -> Form:
        if not segment.trainable or not is_float(segment.dtype):
            return Form.RAW
        match self.codec:
            case Codec.BFLOAT16 if segment.dtype.itemsize > 2:
                return Form.BFLOAT16
            case Codec.FLOAT16 if segment.dtype.itemsize > 2:
                return Form.FLOAT16
            case Codec.INT8:
                return Form.INT8
            case Codec.TOPK:
                return Form.TOPK
            case _:
                return Form.RAW

    def _kept(self, elements: int) -> int:
        return min(elements, max(1, round(self.fraction * elements)))

"""`spec.transport`: how models travel."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import PositiveFraction, SpecModel
from metisfl.spec.rule import Json, Rule


class CodecName(StrEnum):
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    INT8 = "Int8"
    TOPK = "TopK"


class CompressionType(StrEnum):
    NONE = "None"
    ZSTD = "Zstd"


class TopKSpec(SpecModel):
    """What codec TopK keeps of an update."""

    fraction: PositiveFraction = "0.1"
    """Share of the values that is sent, above 0 and at most 1, as a decimal string; 0.01 suits large models."""


class CompressionSpec(SpecModel):
    """Lossless compression of what the codec makes, piece by piece."""

    type: CompressionType = CompressionType.NONE
    """None: as it is. Zstd: with Zstandard, which pays off on slow links and for models with many equal values."""

    level: Annotated[int, Field(ge=1, le=19)] | None = None
    """For type Zstd: higher takes longer and packs tighter. Default: 3."""

    @property
    def level_or_default(self) -> int:
        return self.level or 3


class TransportSpec(SpecModel):
    """How models travel."""

    codec: CodecName = CodecName.FLOAT32
    """Float32: tensors in their own dtype, without loss. The others narrow trainable floating-point tensors, and
    learners then send what their training changed. BFloat16, Float16: 16 bits a value. Int8: 8 bits and a scale for
    each 64 values. TopK: only the largest changes, the rest is carried over to the next round; models go down in
    Float32."""

    top_k: Annotated[TopKSpec | None, Field(alias="topK")] = None
    """For codec TopK: how much of each update is sent."""

    compression: CompressionSpec = CompressionSpec()

    @property
    def top_k_or_default(self) -> TopKSpec:
        return self.top_k or TopKSpec()


def _top_k_only_for_its_codec(transport: Json) -> bool:
    return "topK" not in transport or transport.get("codec") == "TopK"


def _level_only_for_zstd(compression: Json) -> bool:
    return "level" not in compression or compression.get("type") == "Zstd"


RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec", "transport"),
        message="topK is for codec TopK only",
        holds=_top_k_only_for_its_codec,
        cel="!has(self.topK) || self.codec == 'TopK'",
    ),
    Rule(
        path=("spec", "transport", "compression"),
        message="level is for type Zstd only",
        holds=_level_only_for_zstd,
        cel="!has(self.level) || self.type == 'Zstd'",
    ),
)

"""What learner and controller agree on at Join: codec and compression."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire.codecs import Codec, CodecError, Encoding
from metisfl.wire.compression import Compression, Zstd
from metisfl.wire.control import control_layout
from metisfl.wire.layout import Layout
from metisfl.wire.sections import Sections


@dataclass(frozen=True)
class Transport:
    """`fraction` is TopK's, `level` Zstandard's; both are of no account otherwise. `updates`: results of training are
    differences to the model as received, as they are anyhow with a codec that is not lossless. `control`: control
    variates travel along."""

    codec: Codec = Codec.FLOAT32
    fraction: float = 0.1
    compression: Compression = Compression.NONE
    level: int = 3
    updates: bool = False
    control: bool = False

    def __post_init__(self) -> None:
        if not self.codec.lossless:
            object.__setattr__(self, "updates", True)

    @classmethod
    def of(cls, terms: pb.JoinResponse) -> Transport:
        """What a controller's answer to Join asks for. Raises CodecError when this release cannot do it."""
        known = {compression.number: compression for compression in Compression}
        if terms.compression not in known:
            raise CodecError(f"compression {terms.compression} is unknown; known: {', '.join(known.values())}")
        codec = Codec.of(terms.codec)
        fraction = terms.topk_fraction if codec is Codec.TOPK else cls.fraction
        if not 0 < fraction <= 1:
            raise CodecError(f"TopK keeps a fraction above 0 and up to 1, not {fraction}")
        return cls(codec, fraction, known[terms.compression], terms.compression_level, terms.updates, terms.control)

    def tell(self, terms: pb.JoinResponse) -> None:
        """Write this into the answer to a Join."""
        terms.codec = self.codec.number
        terms.compression = self.compression.number
        terms.updates, terms.control = self.updates, self.control
        if self.codec is Codec.TOPK:
            terms.topk_fraction = self.fraction
        if self.compression is Compression.ZSTD:
            terms.compression_level = self.level

    def unsupported_by(self, request: pb.JoinRequest) -> str | None:
        """What a learner that asks to join cannot do; None when it can take part."""
        if self.codec.number not in request.codecs:
            return f"codec {self.codec}"
        if self.compression is Compression.ZSTD and self.compression.number not in request.compressions:
            return f"compression {self.compression}"
        return None

    def download(self, layout: Layout) -> Encoding:
        """How global models go down."""
        return Encoding(layout, self.codec.for_downloads)

    def upload(self, layout: Layout) -> Encoding:
        """How the results of training come up."""
        return Encoding(layout, self.codec, self.fraction, self.updates)

    def download_sections(self, layout: Layout) -> Sections:
        """What a download consists of. Raises LayoutError for a model that can have no control variates."""
        return Sections.of(self.download(layout), self._control(layout))

    def upload_sections(self, layout: Layout) -> Sections:
        """What the upload of a result of training consists of. Raises LayoutError as above."""
        return Sections.of(self.upload(layout), self._control(layout))

    def _control(self, layout: Layout) -> Encoding | None:
        return Encoding(control_layout(layout), Codec.FLOAT32) if self.control else None

    @property
    def packer(self) -> Zstd | None:
        return Zstd(self.level) if self.compression is Compression.ZSTD else None


LOSSLESS = Transport()
"""Float32 without compression, the default."""


def supported_codecs() -> list[model_pb2.Codec.ValueType]:
    """What this release can do, for a learner's Join."""
    return [codec.number for codec in Codec]


def supported_compressions() -> list[model_pb2.Compression.ValueType]:
    """What this release can do, for a learner's Join."""
    return [compression.number for compression in Compression if compression is not Compression.NONE]

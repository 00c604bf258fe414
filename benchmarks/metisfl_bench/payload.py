"""What the load's learners upload: made once, shared by all, and never trained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.sections import MODEL_SECTION

SEED = 20231101
_PATTERN = 1 << 20
"""Values that are drawn; larger models repeat them."""

IN_MEMORY_BYTES = 1 << 30
"""Larger sections are read from a mapped file while they are sent."""


@dataclass
class Payload:
    """One encoded section as an upload sends it."""

    kind: pb.UploadKind.ValueType
    section: model_pb2.Section
    checksum: int
    content: Buffer
    _messages: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, kind: pb.UploadKind.ValueType, encoding: Encoding, content: Buffer) -> Payload:
        payload = cls(kind, encoding.section(MODEL_SECTION), frames.section_checksum(content.data), content)
        if content.nbytes <= IN_MEMORY_BYTES:
            payload._messages = list(frames.encode_section(0, content.data))
        return payload

    def messages(self) -> Iterator[bytes]:
        """All chunk messages, and the finish."""
        yield from self._messages or frames.encode_section(0, self.content.data)
        finish = model_pb2.Finish(section_checksums=[self.checksum])
        yield pb.UploadRequest(finish=finish).SerializeToString()


def whole_model(layout: Layout) -> Payload:
    """A float32 model of N(0, 1) × 0.1 for INITIALISE, and for every task with codec Float32."""
    model = _buffer(layout.nbytes)
    pattern = np.random.default_rng(SEED).normal(0, 0.1, _PATTERN).astype(np.float32)
    values = model.view(np.float32)
    for start in range(0, values.size, pattern.size):
        part = values[start : start + pattern.size]
        part[...] = pattern[: part.size]
    return Payload.of(pb.UPLOAD_KIND_MODEL, Encoding(layout, Codec.FLOAT32), model)


def update(encoding: Encoding, model: Buffer) -> Payload:
    """The same numbers as an update, in a lossy codec."""
    return Payload.of(pb.UPLOAD_KIND_UPDATE, encoding, encoding.encode(model))


def _buffer(nbytes: int) -> Buffer:
    if nbytes <= IN_MEMORY_BYTES:
        return np.zeros(nbytes, np.uint8)
    with tempfile.TemporaryFile() as file:
        file.truncate(nbytes)
        mapped: Buffer = np.memmap(file, dtype=np.uint8, mode="r+", shape=(nbytes,))
        return mapped

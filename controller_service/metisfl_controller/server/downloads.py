"""The current global model, encoded once for all learners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.limits import CHUNK_BYTES

MODEL_SECTION = "model"


@dataclass(frozen=True)
class _Encoded:
    chunks: list[bytes]
    checksum: int


class GlobalModel:
    """One version in memory. Its chunk messages are made on the first download and shared by all that follow."""

    def __init__(self, version: int, layout: Layout, buffer: Buffer) -> None:
        self.version = version
        self.layout = layout
        self.buffer = buffer
        self._encoded: asyncio.Future[_Encoded] | None = None

    async def stream(self, offset: int, sent: Callable[[int], None]) -> AsyncIterator[pb.DownloadResponse | bytes]:
        """The messages of a download from the chunk at byte `offset` on; `sent` hears of each payload's size."""
        yield pb.DownloadResponse(
            header=pb.DownloadHeader(model_version=self.version, sections=[model_section(self.layout)])
        )
        encoded = await self._encode()
        first = -(-offset // CHUNK_BYTES)
        for number, chunk in enumerate(encoded.chunks[first:], first):
            yield chunk
            sent(min(CHUNK_BYTES, self.layout.nbytes - number * CHUNK_BYTES))
        yield pb.DownloadResponse(finish=model_pb2.Finish(section_checksums=[encoded.checksum]))

    async def _encode(self) -> _Encoded:
        if self._encoded is None:
            self._encoded = asyncio.ensure_future(asyncio.to_thread(_encode, self.buffer))
        # One learner that goes away must not cancel what the others wait for.
        return await asyncio.shield(self._encoded)


def model_section(layout: Layout) -> model_pb2.Section:
    """The header's description of a whole model, codec Float32."""
    return model_pb2.Section(
        name=MODEL_SECTION,
        layout=layout.to_proto(),
        codec=model_pb2.CODEC_FLOAT32,
        encoded_bytes=layout.nbytes,
    )


def _encode(buffer: Buffer) -> _Encoded:
    return _Encoded(list(frames.encode_section(0, buffer.data)), frames.section_checksum(buffer.data))

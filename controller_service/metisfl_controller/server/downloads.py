"""The current global model, encoded once for all learners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.limits import CHUNK_BYTES
from metisfl_controller.server.chunks import Chunks, chunks_of

MODEL_SECTION = "model"


class GlobalModel:
    """One version. Its chunk messages are made on the first download and, where memory allows, shared by all."""

    def __init__(self, version: int, layout: Layout, buffer: Buffer) -> None:
        self.version = version
        self.layout = layout
        self.buffer = buffer
        self._chunks: asyncio.Future[Chunks] | None = None

    async def stream(self, offset: int, sent: Callable[[int], None]) -> AsyncIterator[pb.DownloadResponse | bytes]:
        """The messages of a download from the chunk at byte `offset` on; `sent` hears of each payload's size."""
        yield pb.DownloadResponse(
            header=pb.DownloadHeader(model_version=self.version, sections=[model_section(self.layout)])
        )
        chunks, position = await self._encode(), offset
        async for chunk in chunks.stream(offset):
            yield chunk
            size = min(CHUNK_BYTES, self.layout.nbytes - position)
            position += size
            sent(size)
        yield pb.DownloadResponse(finish=model_pb2.Finish(section_checksums=[chunks.checksum]))

    async def _encode(self) -> Chunks:
        if self._chunks is None:
            self._chunks = asyncio.ensure_future(asyncio.to_thread(chunks_of, self.buffer))
        # One learner that goes away must not cancel what the others wait for.
        return await asyncio.shield(self._chunks)


def model_section(layout: Layout) -> model_pb2.Section:
    """The header's description of a whole model, codec Float32."""
    return model_pb2.Section(
        name=MODEL_SECTION,
        layout=layout.to_proto(),
        codec=model_pb2.CODEC_FLOAT32,
        encoded_bytes=layout.nbytes,
    )

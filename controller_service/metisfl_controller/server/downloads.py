"""The current global model, encoded once for all learners."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.codecs import Encoding
from metisfl.wire.compression import Zstd
from metisfl.wire.layout import Buffer
from metisfl.wire.transport import MODEL_SECTION
from metisfl_controller.server.chunks import chunks_of


class RetiredError(Exception):
    """A download that goes on, from where it was broken off, when it is asked for again."""


class GlobalModel:
    """One version as it travels. Its messages are made once, at once, and where memory allows they are kept; `content`,
    the encoded model, is not unless it is a mapped file."""

    def __init__(self, version: int, encoding: Encoding, content: Buffer, packer: Zstd | None = None) -> None:
        self.version = version
        self.encoding = encoding
        header = pb.DownloadHeader(model_version=version, sections=[encoding.section(MODEL_SECTION)])
        self._header = frames.encode(pb.DownloadResponse(header=header))
        self._chunks = chunks_of(content, packer)
        self._retired = False

    def retire(self) -> None:
        """End the downloads under way: the memory is needed, and they can go on elsewhere."""
        self._retired = True

    async def stream(self, offset: int, sent: Callable[[int], None]) -> AsyncIterator[pb.DownloadResponse | bytes]:
        """The messages of a download from the chunk at byte `offset` on; `sent` hears of each payload's size.
        Raises RetiredError."""
        yield self._header
        async for chunk in self._chunks.stream(offset):
            if self._retired:
                raise RetiredError(f"model version {self.version} is not kept in memory any more; go on")
            yield chunk.message
            sent(chunk.payload)
        yield pb.DownloadResponse(finish=model_pb2.Finish(section_checksums=[await self._chunks.checksum()]))

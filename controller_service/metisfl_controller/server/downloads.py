"""The current global model, encoded once for all learners."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.compression import Zstd
from metisfl.wire.layout import Buffer
from metisfl.wire.sections import Sections
from metisfl_controller.server.chunks import chunks_of


class RetiredError(Exception):
    """A download that goes on, from where it was broken off, when it is asked for again."""


class GlobalModel:
    """One version as it travels. Its messages are made once, at once, and where memory allows they are kept;
    `contents`, the encoded sections, are not unless they are mapped files."""

    def __init__(
        self, version: int, sections: Sections, contents: Sequence[Buffer], packer: Zstd | None = None
    ) -> None:
        self.version = version
        self.sections = sections
        header = pb.DownloadHeader(model_version=version, sections=sections.announce())
        self._header = frames.encode(pb.DownloadResponse(header=header))
        self._chunks = [chunks_of(number, content, packer) for number, content in enumerate(contents)]
        self._retired = False

    def problem(self, offsets: Sequence[int]) -> str | None:
        """Why a download cannot go on at these offsets, one a section, none meaning 0; None when it can."""
        sizes = self.sections.sizes
        if len(offsets) <= len(sizes) and all(map(frames.is_border, offsets, sizes)):
            return None
        count = f"{len(sizes)} sections" if len(sizes) > 1 else "one section"
        nbytes = " and ".join(map(str, sizes))
        return f"offsets {list(offsets)[:5]} are not a border between chunks of {count} of {nbytes} bytes"

    def retire(self) -> None:
        """End the downloads under way: the memory is needed, and they can go on elsewhere."""
        self._retired = True

    async def stream(
        self, offsets: Sequence[int], sent: Callable[[int], None]
    ) -> AsyncIterator[pb.DownloadResponse | bytes]:
        """The messages of a download from these offsets on; `sent` hears of each payload's size. Raises
        RetiredError."""
        yield self._header
        starts = [*offsets, *[0] * (len(self._chunks) - len(offsets))]
        for chunks, start in zip(self._chunks, starts, strict=True):
            async for chunk in chunks.stream(start):
                if self._retired:
                    raise RetiredError(f"model version {self.version} is not kept in memory any more; go on")
                yield chunk.message
                sent(chunk.payload)
        checksums = [await chunks.checksum() for chunks in self._chunks]
        yield pb.DownloadResponse(finish=model_pb2.Finish(section_checksums=checksums))

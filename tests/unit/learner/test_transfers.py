"""A download piece by piece: what is refused, and what is kept for the next attempt."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.frames import ChunkFrame
from metisfl.wire.layout import Layout
from metisfl_learner.exits import FatalError
from metisfl_learner.transfers import Download, TransferError

ARRAYS = {"w": np.arange(300, dtype=np.float32), "n": np.array(7, np.int64)}
LAYOUT = Layout.of(ARRAYS)
CONTENT = LAYOUT.pack(ARRAYS).data
FINISH = model_pb2.Finish(section_checksums=[frames.checksum(CONTENT)])


def chunk(start: int, stop: int, section: int = 0) -> ChunkFrame:
    return ChunkFrame(section, start, CONTENT[start:stop])


def header(version: int = 3, layout: Layout = LAYOUT, nbytes: int = LAYOUT.nbytes) -> pb.DownloadHeader:
    section = model_pb2.Section(name="model", layout=layout.to_proto(), encoded_bytes=nbytes)
    return pb.DownloadHeader(model_version=version, sections=[section])


@given(cuts=st.sets(st.integers(1, len(CONTENT) - 1)))
def test_any_cut_gives_the_model(cuts: set[int]) -> None:
    download = Download(3, LAYOUT)
    download.header(header())
    edges = [0, *sorted(cuts), len(CONTENT)]
    for start, stop in itertools.pairwise(edges):
        download.chunk(chunk(start, stop))
    download.finish(FINISH)
    assert bytes(download.buffer.data) == bytes(CONTENT)


@pytest.mark.parametrize("wrong", [chunk(0, 10), chunk(20, 30), chunk(10, 20, section=1)])
def test_chunk_that_is_not_the_next_one_is_refused(wrong: ChunkFrame) -> None:
    download = Download(3, LAYOUT)
    download.chunk(chunk(0, 10))
    with pytest.raises(TransferError, match="came where 10 was next"):
        download.chunk(wrong)
    assert download.received == 10


def test_chunk_past_the_end_is_refused() -> None:
    download = Download(3, LAYOUT)
    with pytest.raises(TransferError):
        download.chunk(ChunkFrame(0, 0, memoryview(bytes(LAYOUT.nbytes + 1))))


def test_early_end_keeps_what_has_come() -> None:
    download = Download(3, LAYOUT)
    download.chunk(chunk(0, 10))
    with pytest.raises(TransferError, match=f"ended after 10 of {LAYOUT.nbytes} bytes"):
        download.finish(FINISH)
    assert download.received == 10


def test_wrong_checksum_starts_over() -> None:
    download = Download(3, LAYOUT)
    download.chunk(chunk(0, len(CONTENT)))
    with pytest.raises(TransferError, match="does not fit its checksum"):
        download.finish(model_pb2.Finish(section_checksums=[1]))
    assert download.received == 0
    download.chunk(chunk(0, len(CONTENT)))
    download.finish(FINISH)


def test_other_version_or_size_is_refused() -> None:
    with pytest.raises(TransferError, match="asked for version 3"):
        Download(3, LAYOUT).header(header(version=4))
    with pytest.raises(TransferError, match="bytes were announced"):
        Download(3, LAYOUT).header(header(nbytes=5))


def test_other_layout_ends_the_learner_with_the_difference() -> None:
    other = Layout.of({"w": np.zeros(299, np.float32), "n": ARRAYS["n"]})
    with pytest.raises(FatalError, match=r"tensor 'w' is float32\[299\], expected float32\[300\]"):
        Download(3, LAYOUT).header(header(layout=other))

"""Downloads from any offset, and uploads that break, repeat and compete."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.logs import logger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire import frames
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.compression import Zstd
from metisfl.wire.frames import ChunkFrame, FrameError
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.limits import CHUNK_BYTES, MAX_COUNT, MAX_METRIC_NAME, MAX_METRICS
from metisfl.wire.reassembly import Reassembly
from metisfl.wire.sections import Sections
from metisfl_controller.aggregation.mapped import mapped_zeros
from metisfl_controller.aggregation.memory import ModelMemory
from metisfl_controller.aggregation.staging import Place
from metisfl_controller.rounds.tasks import Kind, TaskId
from metisfl_controller.server.downloads import GlobalModel
from metisfl_controller.server.uploads import Upload, UploadError, Uploads, check_evaluation

SMALL = Encoding(Layout.of({"w": np.zeros(5, np.float32)}), Codec.FLOAT32)
TASK = TaskId("uid", 1, Kind.TRAIN, 3, "a-0", 1)
INITIALISE = TaskId("uid", 1, Kind.INITIALISE, 0, "a-0", 1)

# ---- downloads


def random_bytes(nbytes: int) -> tuple[Encoding, Buffer]:
    encoding = Encoding(Layout.of({"w": np.zeros(nbytes, np.uint8)}), Codec.FLOAT32)
    return encoding, np.random.default_rng(nbytes).integers(0, 256, nbytes, dtype=np.uint8)


def global_model(encoding: Encoding, content: Buffer, packer: Zstd | None = None) -> GlobalModel:
    return GlobalModel(7, Sections.of(encoding), [content], packer)


async def downloaded(model: GlobalModel, content: Buffer, offset: int) -> tuple[bytes, int]:
    """Payload and what was counted as sent; fails on gaps, overlaps and whatever does not belong there."""
    counted: list[int] = []
    decode = frames.decoder(pb.DownloadResponse)
    messages = [decode(frames.encode(message)) async for message in model.stream([offset], counted.append)]
    header, finish = messages[0], messages[-1]
    assert isinstance(header, pb.DownloadResponse)
    assert header.header.model_version == 7
    assert list(header.header.sections) == model.sections.announce()
    assert isinstance(finish, pb.DownloadResponse)
    assert list(finish.finish.section_checksums) == [frames.section_checksum(content.data)]
    payload = b""
    for frame in messages[1:-1]:
        if isinstance(frame, frames.PackedChunk):
            frame = frame.unpacked()
        assert isinstance(frame, ChunkFrame)
        assert frame.offset == offset + len(payload)
        assert len(frame.data) > 0
        payload += frame.data
    return payload, sum(counted)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("nbytes", [1, CHUNK_BYTES - 1, CHUNK_BYTES, 4 * CHUNK_BYTES, 6 * CHUNK_BYTES + 5])
async def test_a_download_goes_on_from_any_chunk_and_from_its_end(nbytes: int, mapped: bool, tmp_path: Path) -> None:
    """With nothing left to send, only the finish was lost."""
    encoding, content = random_bytes(nbytes)
    for offset in [*range(0, nbytes, CHUNK_BYTES), nbytes]:
        # A new one each time: who asks first must not depend on others having asked before.
        model = global_model(encoding, in_file(tmp_path, content) if mapped else content)
        payload, sent = await downloaded(model, content, offset)
        assert payload == content.tobytes()[offset:]
        assert sent == nbytes - offset


@pytest.mark.parametrize("mapped", [False, True])
async def test_a_download_of_two_sections_goes_on_in_either(mapped: bool, tmp_path: Path) -> None:
    (first, one), (second, two) = random_bytes(2 * CHUNK_BYTES + 5), random_bytes(CHUNK_BYTES + 7)
    contents = [in_file(tmp_path, content) if mapped else content for content in (one, two)]
    decode = frames.decoder(pb.DownloadResponse)
    for offsets in ([], [0, 0], [CHUNK_BYTES, 0], [one.size, 0], [one.size, CHUNK_BYTES], [one.size, two.size]):
        model = GlobalModel(7, Sections.of(first, second), contents)
        assert model.problem(offsets) is None
        messages = [decode(frames.encode(message)) async for message in model.stream(offsets, lambda _: None)]
        got = [b"", b""]
        for frame in messages[1:-1]:
            assert isinstance(frame, ChunkFrame)
            got[frame.section] += frame.data
        starts = offsets or [0, 0]
        assert got == [content.tobytes()[start:] for content, start in zip((one, two), starts, strict=True)]
        finish = messages[-1].finish  # type: ignore[union-attr]
        assert list(finish.section_checksums) == [frames.section_checksum(content.data) for content in (one, two)]
    for offsets in ([1, 0], [0, 5], [0, 0, 0], [0, two.size + 1]):
        assert "are not a border between chunks of 2 sections" in str(model.problem(offsets))


def in_file(folder: Path, content: Buffer) -> Buffer:
    mapped = mapped_zeros(folder, content.size)
    mapped[:] = content
    return mapped


async def test_all_learners_get_the_very_same_messages() -> None:
    model = global_model(*random_bytes(2 * CHUNK_BYTES))
    first = [message async for message in model.stream([0], lambda _: None)]
    second = [message async for message in model.stream([CHUNK_BYTES], lambda _: None)]
    assert second[1] is first[2]


async def test_a_model_in_a_mapped_file_is_read_for_each_learner(tmp_path: Path) -> None:
    encoding, content = random_bytes(CHUNK_BYTES)
    model = global_model(encoding, in_file(tmp_path, content))
    first = [message async for message in model.stream([0], lambda _: None)]
    second = [message async for message in model.stream([0], lambda _: None)]
    assert second[1] is not first[1], "kept in memory, where it has no room"


async def test_a_model_in_memory_is_let_go_once_its_messages_are_made() -> None:
    encoding, content = random_bytes(3 * CHUNK_BYTES)
    gone = weakref.ref(content)
    model = global_model(encoding, content)
    del content
    assert len([message async for message in model.stream([0], lambda _: None)]) == 5
    async with asyncio.timeout(10):  # two copies of the model, if it takes longer
        while gone() is not None:  # noqa: ASYNC110 - a thread ends, and tells nobody
            await asyncio.sleep(0.001)


async def test_what_goes_wrong_while_chunks_are_made_reaches_every_download() -> None:
    class FullError(Exception):
        pass

    class Packer(Zstd):
        def pack(self, data: memoryview) -> bytes | None:
            raise FullError

    model = global_model(*random_bytes(2 * CHUNK_BYTES), Packer(3))
    for _ in range(2):
        with pytest.raises(FullError):
            [message async for message in model.stream([0], lambda _: None)]


async def test_a_packed_download_counts_what_travels() -> None:
    encoding, content = random_bytes(3 * CHUNK_BYTES)
    content[: 2 * CHUNK_BYTES] = 7
    payload, sent = await downloaded(global_model(encoding, content, Zstd(3)), content, 0)
    assert payload == content.tobytes()
    assert CHUNK_BYTES < sent < CHUNK_BYTES + 1000


@pytest.mark.parametrize("codec", Codec)
async def test_a_download_holds_the_encoded_model(codec: Codec) -> None:
    layout = Layout.of({"w": np.zeros(200_000, np.float32), "n": np.zeros(3, np.int64)})
    weights = np.random.default_rng(1).normal(size=200_000).astype(np.float32)
    buffer = layout.pack({"w": weights, "n": np.arange(3)})
    encoding = Encoding(layout, codec.for_downloads)
    content = encoding.encode(buffer)
    payload, sent = await downloaded(global_model(encoding, content), content, 0)
    assert sent == encoding.nbytes
    assert payload == content.tobytes()


# ---- uploads


def plain(**arrays: Any) -> Encoding:
    return Encoding(Layout.of(arrays), Codec.FLOAT32)


def header(encoding: Encoding = SMALL, **changes: Any) -> pb.UploadHeader:
    values = {
        "lease_id": "l",
        "task_id": str(TASK),
        "kind": pb.UPLOAD_KIND_MODEL,
        "base_version": 3,
        "sections": [encoding.section("model")],
        "report": pb.TrainingReport(examples=10, batches=1),
        **changes,
    }
    return pb.UploadHeader(**values)


def section(encoding: Encoding, **changes: Any) -> model_pb2.Section:
    """The section of an encoding with some fields set otherwise."""
    made = encoding.section("model")
    for name, value in changes.items():
        if name == "kept":
            made.kept[:] = value
        else:
            setattr(made, name, value)
    return made


@pytest.fixture
async def uploads(tmp_path: Path) -> AsyncIterator[Uploads]:
    made = Uploads(ModelMemory(1 << 30, tmp_path), logger("test"))
    yield made
    made.close()


LARGE = plain(w=np.zeros(CHUNK_BYTES // 4 + 5, np.float32))
CONTENT = np.random.default_rng(3).bytes(LARGE.nbytes)
FINISH = model_pb2.Finish(section_checksums=[frames.section_checksum(memoryview(CONTENT))])


def chunk(start: int) -> ChunkFrame:
    data = memoryview(CONTENT)[start : start + CHUNK_BYTES]
    return ChunkFrame(0, start, data, frames.checksum(data))


async def test_an_upload_in_pieces(uploads: Uploads) -> None:
    upload = uploads.begin(TASK, header(LARGE), Sections.of(LARGE), "stream")
    await upload.take(chunk(0))
    with pytest.raises(FrameError, match="were next"):
        await upload.take(chunk(0))
    await upload.take(chunk(CHUNK_BYTES))
    upload.arriving.finish(FINISH)
    assert upload.place.buffer.tobytes() == CONTENT
    assert uploads.of(TASK) is upload


async def test_a_broken_upload_goes_on_where_it_was(uploads: Uploads) -> None:
    first = uploads.begin(TASK, header(LARGE), Sections.of(LARGE), "one")
    await first.take(chunk(0))
    again = uploads.begin(
        TASK, header(LARGE, report=pb.TrainingReport(examples=11, batches=1)), Sections.of(LARGE), "two"
    )
    assert again is first
    assert (again.arriving.received, again.stream, again.report.examples) == (CHUNK_BYTES, "two", 11)
    await again.take(chunk(CHUNK_BYTES))
    again.arriving.finish(FINISH)
    assert again.place.buffer.tobytes() == CONTENT


async def test_a_place_is_freed_once_however_often_it_is_dropped(uploads: Uploads) -> None:
    upload = uploads.begin(TASK, header(), Sections.of(SMALL), "one")
    buffer = upload.place.buffer
    for _ in range(3):
        uploads.drop(upload)
    other = [
        uploads.begin(TaskId("uid", 1, Kind.TRAIN, 3, f"a-{i}", 1), header(), Sections.of(SMALL), "s") for i in range(2)
    ]
    assert other[0].place.buffer is buffer
    assert other[1].place.buffer is not buffer


async def test_a_broken_upload_keeps_what_has_arrived_and_one_that_never_came_in_is_gone(tmp_path: Path) -> None:
    # Three models of 16 bytes and the sums take 80 bytes, which leaves one slot.
    uploads = Uploads(ModelMemory(80 + 16, tmp_path), logger("test"))
    small = plain(w=np.zeros(4, np.float32))
    first = uploads.begin(TASK, header(small), Sections.of(small), "one")
    task = TaskId("uid", 1, Kind.TRAIN, 3, "a-1", 1)
    second = uploads.begin(task, header(small), Sections.of(small), "two")
    assert not second.place.let_in.done()
    uploads.leave_to_be_resumed(second)
    uploads.leave_to_be_resumed(first)
    assert uploads.stale(lambda _: False) == [first]
    assert uploads.begin(task, header(small), Sections.of(small), "three") is not second
    uploads.close()


async def test_an_upload_of_another_layout_replaces_the_other_one(uploads: Uploads) -> None:
    """Only the initial model can change its mind about the layout; its old stream must not write on."""
    old = uploads.begin(INITIALISE, header(), None, "one")
    new = uploads.begin(INITIALISE, header(plain(v=np.zeros(5, np.float32))), None, "two")
    assert new is not old
    assert old.stream is None
    uploads.drop(old)
    assert uploads.of(INITIALISE) is new
    third = uploads.begin(TASK, header(), Sections.of(SMALL), "three")
    assert third.place.buffer is not new.place.buffer


async def test_a_judged_upload_is_not_touched_by_another_stream(uploads: Uploads) -> None:
    upload = uploads.begin(TASK, header(), Sections.of(SMALL), "one")
    upload.verdict = object()  # type: ignore[assignment]
    again = uploads.begin(TASK, header(report=pb.TrainingReport(examples=99, batches=1)), Sections.of(SMALL), "two")
    assert again is upload
    assert (again.stream, again.report.examples) == ("one", 10)


async def test_uploads_that_no_longer_count_are_found(uploads: Uploads) -> None:
    upload = uploads.begin(TASK, header(), Sections.of(SMALL), "one")
    assert uploads.stale(lambda task: task == TASK) == []
    assert uploads.stale(lambda task: False) == [upload]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kind": 0}, "upload kind 0"),
        ({"kind": pb.UPLOAD_KIND_UPDATE}, "upload kind 2 does not fit; send whole weights"),
        ({"kind": 9}, "upload kind 9"),
        ({"sections": []}, "expected section 'model', got none"),
        ({"sections": [SMALL.section("model")] * 2}, "expected section 'model', got 'model', 'model'"),
        ({"sections": [model_pb2.Section(name="residual", encoded_bytes=20)]}, "got 'residual'"),
        (
            {"sections": [model_pb2.Section(name="model", codec=5)]},
            "codec 5 was not agreed on at Join, which was Float32",
        ),
        ({"sections": [model_pb2.Section(name="model", codec=1, encoded_bytes=20)]}, "at least one tensor"),
        (
            {"sections": [model_pb2.Section(name="model", codec=1, encoded_bytes=20, opaque_bytes=20)]},
            "at least one tensor",
        ),
        (
            {"sections": [section(SMALL, encoded_bytes=2**63)]},
            "9223372036854775808 bytes are declared, its layout has 20",
        ),
        (
            {"sections": [plain(v=np.zeros(5, np.float32)).section("model")]},
            "another layout: tensor 'w' is missing",
        ),
        ({"report": pb.TrainingReport(batches=1)}, "0 training examples"),
        ({"report": pb.TrainingReport(examples=1)}, "0 batches"),
        ({"report": pb.TrainingReport(examples=2**64 - 1)}, "18446744073709551615 training examples"),
        ({"report": pb.TrainingReport(examples=1, batches=2**63)}, "batches"),
        ({"report": pb.TrainingReport(examples=1, batches=1, seconds=float("nan"))}, "nan s"),
        ({"report": pb.TrainingReport(examples=1, batches=1, epochs=float("inf"))}, "inf epochs"),
        (
            {
                "report": pb.TrainingReport(
                    examples=1, batches=1, metrics=[model_pb2.Metric(name="loss", value=float("nan"))]
                )
            },
            "metric 'loss' is nan",
        ),
        (
            {
                "report": pb.TrainingReport(
                    examples=1, batches=1, metrics=[model_pb2.Metric(name="x")] * (MAX_METRICS + 1)
                )
            },
            "65 metrics",
        ),
    ],
)
async def test_hostile_headers_are_refused(uploads: Uploads, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UploadError, match=complaint.replace("[]", r"\[\]")):
        uploads.begin(TASK, header(**changes), Sections.of(SMALL), "stream")
    assert uploads.stale(lambda _: False) == []


async def test_a_reserved_name_is_refused_in_the_initial_model(uploads: Uploads) -> None:
    with pytest.raises(UploadError, match="no tensor may be called"):
        uploads.begin(INITIALISE, header(plain(__metadata__=np.zeros(1))), None, "stream")


@pytest.mark.parametrize(
    ("codec", "changes", "complaint"),
    [
        (Codec.INT8, {"kind": pb.UPLOAD_KIND_MODEL}, "kind 1 does not fit; send the update, trained less received"),
        (Codec.INT8, {"codec": 1}, "codec 1 was not agreed on at Join, which was Int8"),
        (Codec.INT8, {"codec": 77}, "codec 77 was not agreed on"),
        (Codec.INT8, {"encoded_bytes": 20}, "20 bytes are declared, its layout has 68 in codec Int8"),
        (Codec.TOPK, {"kept": [4]}, r"\[4\] values are kept, and TopK of 0.4 keeps \[2\]"),
        (Codec.TOPK, {"kept": []}, "values are kept"),
        (Codec.TOPK, {"kept": [2, 2]}, "values are kept"),
        (Codec.FLOAT16, {"kept": [2]}, "values are kept"),
    ],
)
async def test_updates_that_are_not_what_was_agreed_on_are_refused(
    uploads: Uploads, codec: Codec, changes: dict[str, Any], complaint: str
) -> None:
    agreed = Encoding(SMALL.layout, codec, 0.4, updates=True)
    kind = changes.pop("kind", pb.UPLOAD_KIND_UPDATE)
    with pytest.raises(UploadError, match=complaint):
        uploads.begin(TASK, header(sections=[section(agreed, **changes)], kind=kind), Sections.of(agreed), "stream")
    upload = uploads.begin(TASK, header(agreed, kind=pb.UPLOAD_KIND_UPDATE), Sections.of(agreed), "stream")
    assert upload.place.buffer.size == agreed.nbytes


@pytest.mark.parametrize(
    "evaluation",
    [
        pb.Evaluation(examples=2**64 - 1),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name="", value=1)]),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name="x" * (MAX_METRIC_NAME + 1), value=1)]),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name="a", value=float("inf"))]),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name="a\n", value=1)]),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name='a",b="c', value=1)]),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name="1st", value=1)]),
    ],
)
def test_hostile_evaluations_are_refused(evaluation: pb.Evaluation) -> None:
    with pytest.raises(UploadError):
        check_evaluation(evaluation)
    check_evaluation(pb.Evaluation(examples=MAX_COUNT, metrics=[model_pb2.Metric(name="a", value=-1e300)]))


@given(st.lists(st.tuples(st.sampled_from([0, 1, CHUNK_BYTES, 2**63]), st.sampled_from([0, 20, CHUNK_BYTES]))))
async def test_whatever_arrives_the_buffer_holds_a_prefix_of_the_content(pieces: list[tuple[int, int]]) -> None:
    buffer: Buffer = np.zeros(LARGE.nbytes, np.uint8)
    arriving = Reassembly(LARGE.nbytes)
    place = Place.__new__(Place)
    place.file, place.buffer = None, buffer
    upload = Upload(TASK, Sections.of(LARGE), arriving, place, pb.TrainingReport())
    for offset, size in pieces:
        data = memoryview(CONTENT)[offset : offset + size] if offset < len(CONTENT) else memoryview(b"?")
        with suppress(FrameError):
            await upload.take(ChunkFrame(0, offset, data, 0))
    received = arriving.received
    assert received in (0, CHUNK_BYTES, LARGE.nbytes)
    assert buffer.tobytes()[:received] == CONTENT[:received]
    assert not buffer[received:].any()


async def test_whole_weights_are_refused_where_updates_were_agreed_on(uploads: Uploads) -> None:
    agreed = replace(SMALL, updates=True)
    with pytest.raises(UploadError, match="kind 1 does not fit; send the update"):
        uploads.begin(TASK, header(), Sections.of(agreed), "stream")
    with pytest.raises(UploadError, match="kind 2 does not fit; send whole weights"):
        uploads.begin(TASK, header(kind=pb.UPLOAD_KIND_UPDATE), Sections.of(SMALL), "stream")
    assert (
        uploads.begin(TASK, header(kind=pb.UPLOAD_KIND_UPDATE), Sections.of(agreed), "stream").sections.model is agreed
    )


async def test_two_sections_share_a_place_and_resume_in_either(uploads: Uploads) -> None:
    agreed = Sections.of(LARGE, plain(c=np.zeros(CHUNK_BYTES // 4 + 1, np.float32)))
    announced = {"sections": agreed.announce()}
    contents = [np.random.default_rng(size).bytes(size) for size in agreed.sizes]
    for number in range(3):
        upload = uploads.begin(TASK, header(LARGE, **announced), agreed, f"stream {number}")
        await upload.place.let_in
        offsets = list(upload.arriving.offsets)
        assert offsets == [[0, 0], [CHUNK_BYTES, 0], [agreed.sizes[0], CHUNK_BYTES]][number]
        chunks = [
            frames.decoder(pb.UploadRequest)(wire)
            for section, (content, offset) in enumerate(zip(contents, offsets, strict=True))
            for wire in frames.encode_section(section, memoryview(content), offset)
        ]
        for chunk in chunks[: number + 1]:
            assert isinstance(chunk, ChunkFrame)
            await upload.take(chunk)
        uploads.leave_to_be_resumed(upload)
    upload.arriving.finish(
        model_pb2.Finish(section_checksums=[frames.section_checksum(memoryview(content)) for content in contents])
    )
    parts = [part for _, _, part in agreed.of_place(upload.place.buffer)]
    assert [part.tobytes() for part in parts] == contents


@pytest.mark.parametrize(
    ("announced", "complaint"),
    [
        ([SMALL], "expected section 'model', 'control', got 'model'"),
        ([LARGE, SMALL], "bytes are declared"),
        ([SMALL, plain(c=np.zeros(6, np.float32))], "section 'control': 24 bytes are declared, its layout has 20"),
        ([SMALL, plain(v=np.zeros(5, np.float32))], "the control has another layout: tensor 'w' is missing"),
    ],
)
async def test_sections_that_were_not_agreed_on_are_refused(
    uploads: Uploads, announced: list[Encoding], complaint: str
) -> None:
    sections = [encoding.section(name) for name, encoding in zip(("model", "control"), announced, strict=False)]
    with pytest.raises(UploadError, match=complaint):
        uploads.begin(TASK, header(sections=sections), Sections.of(SMALL, SMALL), "stream")

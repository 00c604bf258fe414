"""Downloads from any offset, and uploads that break, repeat and compete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
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
from metisfl.wire.frames import ChunkFrame, FrameError, Reassembly
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.limits import CHUNK_BYTES, MAX_COUNT, MAX_METRIC_NAME, MAX_METRICS
from metisfl_controller.aggregation.mapped import mapped_zeros
from metisfl_controller.aggregation.memory import ModelMemory
from metisfl_controller.aggregation.staging import Place
from metisfl_controller.rounds.tasks import Kind, TaskId
from metisfl_controller.server.downloads import GlobalModel, model_section
from metisfl_controller.server.uploads import Upload, UploadError, Uploads, check_evaluation

SMALL = Layout.of({"w": np.zeros(5, np.float32)})
TASK = TaskId("uid", 1, Kind.TRAIN, 3, "a-0", 1)
INITIALISE = TaskId("uid", 1, Kind.INITIALISE, 0, "a-0", 1)

# ---- downloads


def global_model(nbytes: int) -> GlobalModel:
    layout = Layout.of({"w": np.zeros(nbytes, np.uint8)})
    content = np.random.default_rng(nbytes).integers(0, 256, nbytes, dtype=np.uint8)
    return GlobalModel(7, layout, layout.pack({"w": content}))


MODELS = {nbytes: global_model(nbytes) for nbytes in (1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5)}


async def downloaded(model: GlobalModel, offset: int) -> tuple[bytes, int]:
    """Payload and what was counted as sent; fails on gaps, overlaps and whatever does not belong there."""
    counted: list[int] = []
    messages = [message async for message in model.stream(offset, counted.append)]
    header, finish = messages[0], messages[-1]
    assert isinstance(header, pb.DownloadResponse)
    assert header.header.model_version == 7
    assert list(header.header.sections) == [model_section(model.layout)]
    assert isinstance(finish, pb.DownloadResponse)
    assert list(finish.finish.section_checksums) == [frames.section_checksum(model.buffer.data)]
    payload = b""
    for message in messages[1:-1]:
        frame = frames.decoder(pb.DownloadResponse)(frames.encode(message))
        assert isinstance(frame, ChunkFrame)
        assert frame.offset == offset + len(payload)
        assert len(frame.data) > 0
        payload += frame.data
    return payload, sum(counted)


@pytest.mark.parametrize("nbytes", sorted(MODELS))
async def test_a_download_goes_on_from_any_chunk_and_from_its_end(nbytes: int) -> None:
    """With nothing left to send, only the finish was lost."""
    for offset in [*range(0, nbytes, CHUNK_BYTES), nbytes]:
        await check_download(nbytes, offset)


async def check_download(nbytes: int, offset: int) -> None:
    model = MODELS[nbytes]
    payload, sent = await downloaded(model, offset)
    assert payload == model.buffer.tobytes()[offset:]
    assert sent == nbytes - offset


async def test_a_model_in_a_mapped_file_is_read_for_each_learner(tmp_path: Path) -> None:
    nbytes = 6 * CHUNK_BYTES + 5
    layout = Layout.of({"w": np.zeros(nbytes, np.uint8)})
    content = np.random.default_rng(1).integers(0, 256, nbytes, dtype=np.uint8)
    model = GlobalModel(7, layout, layout.pack({"w": content}, into=mapped_zeros(tmp_path, nbytes)))
    for offset in (0, CHUNK_BYTES, 5 * CHUNK_BYTES, 6 * CHUNK_BYTES, nbytes):
        payload, sent = await downloaded(model, offset)
        assert payload == content.tobytes()[offset:]
        assert sent == nbytes - offset
    first = [message async for message in model.stream(0, lambda _: None)]
    second = [message async for message in model.stream(0, lambda _: None)]
    assert second[1] is not first[1], "kept in memory, where it has no room"


async def test_all_learners_get_the_very_same_messages() -> None:
    model = global_model(2 * CHUNK_BYTES)
    first = [message async for message in model.stream(0, lambda _: None)]
    second = [message async for message in model.stream(CHUNK_BYTES, lambda _: None)]
    assert second[1] is first[2]


# ---- uploads


def header(layout: Layout = SMALL, **changes: Any) -> pb.UploadHeader:
    values = {
        "lease_id": "l",
        "task_id": str(TASK),
        "kind": pb.UPLOAD_KIND_MODEL,
        "base_version": 3,
        "sections": [model_section(layout)],
        "report": pb.TrainingReport(examples=10),
        **changes,
    }
    return pb.UploadHeader(**values)


@pytest.fixture
async def uploads(tmp_path: Path) -> AsyncIterator[Uploads]:
    made = Uploads(ModelMemory(1 << 30, tmp_path), logger("test"))
    yield made
    made.close()


LARGE = Layout.of({"w": np.zeros(CHUNK_BYTES // 4 + 5, np.float32)})
CONTENT = np.random.default_rng(3).bytes(LARGE.nbytes)
FINISH = model_pb2.Finish(section_checksums=[frames.section_checksum(memoryview(CONTENT))])


def chunk(start: int) -> ChunkFrame:
    data = memoryview(CONTENT)[start : start + CHUNK_BYTES]
    return ChunkFrame(0, start, data, frames.checksum(data))


async def test_an_upload_in_pieces(uploads: Uploads) -> None:
    upload = uploads.begin(TASK, header(LARGE), LARGE, "stream")
    await upload.take(chunk(0))
    with pytest.raises(FrameError, match="were next"):
        await upload.take(chunk(0))
    await upload.take(chunk(CHUNK_BYTES))
    upload.arriving.finish(FINISH)
    assert upload.place.buffer.tobytes() == CONTENT
    assert uploads.of(TASK) is upload


async def test_a_broken_upload_goes_on_where_it_was(uploads: Uploads) -> None:
    first = uploads.begin(TASK, header(LARGE), LARGE, "one")
    await first.take(chunk(0))
    again = uploads.begin(TASK, header(LARGE, report=pb.TrainingReport(examples=11)), LARGE, "two")
    assert again is first
    assert (again.arriving.received, again.stream, again.report.examples) == (CHUNK_BYTES, "two", 11)
    await again.take(chunk(CHUNK_BYTES))
    again.arriving.finish(FINISH)
    assert again.place.buffer.tobytes() == CONTENT


async def test_a_place_is_freed_once_however_often_it_is_dropped(uploads: Uploads) -> None:
    upload = uploads.begin(TASK, header(), SMALL, "one")
    buffer = upload.place.buffer
    for _ in range(3):
        uploads.drop(upload)
    other = [uploads.begin(TaskId("uid", 1, Kind.TRAIN, 3, f"a-{i}", 1), header(), SMALL, "s") for i in range(2)]
    assert other[0].place.buffer is buffer
    assert other[1].place.buffer is not buffer


async def test_a_broken_upload_keeps_what_has_arrived_and_one_that_never_came_in_is_gone(tmp_path: Path) -> None:
    # Three models of 16 bytes and the sums take 80 bytes, which leaves one slot.
    uploads = Uploads(ModelMemory(80 + 16, tmp_path), logger("test"))
    small = Layout.of({"w": np.zeros(4, np.float32)})
    first = uploads.begin(TASK, header(small), small, "one")
    task = TaskId("uid", 1, Kind.TRAIN, 3, "a-1", 1)
    second = uploads.begin(task, header(small), small, "two")
    assert not second.place.let_in.done()
    uploads.leave_to_be_resumed(second)
    uploads.leave_to_be_resumed(first)
    assert uploads.stale(lambda _: False) == [first]
    assert uploads.begin(task, header(small), small, "three") is not second
    uploads.close()


async def test_an_upload_of_another_layout_replaces_the_other_one(uploads: Uploads) -> None:
    """Only the initial model can change its mind about the layout; its old stream must not write on."""
    old = uploads.begin(INITIALISE, header(), None, "one")
    new = uploads.begin(INITIALISE, header(Layout.of({"v": np.zeros(5, np.float32)})), None, "two")
    assert new is not old
    assert old.stream is None
    uploads.drop(old)
    assert uploads.of(INITIALISE) is new
    third = uploads.begin(TASK, header(), SMALL, "three")
    assert third.place.buffer is not new.place.buffer


async def test_a_judged_upload_is_not_touched_by_another_stream(uploads: Uploads) -> None:
    upload = uploads.begin(TASK, header(), SMALL, "one")
    upload.verdict = object()  # type: ignore[assignment]
    again = uploads.begin(TASK, header(report=pb.TrainingReport(examples=99)), SMALL, "two")
    assert again is upload
    assert (again.stream, again.report.examples) == ("one", 10)


async def test_uploads_that_no_longer_count_are_found(uploads: Uploads) -> None:
    upload = uploads.begin(TASK, header(), SMALL, "one")
    assert uploads.stale(lambda task: task == TASK) == []
    assert uploads.stale(lambda task: False) == [upload]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sections": [model_section(Layout.of({"__metadata__": np.zeros(1)}))]}, "no tensor may be called"),
        ({"kind": 0}, "upload kind 0"),
        ({"kind": 9}, "upload kind 9"),
        ({"sections": []}, "expected one section 'model', got []"),
        ({"sections": [model_section(SMALL)] * 2}, "expected one section"),
        ({"sections": [model_pb2.Section(name="residual", encoded_bytes=20)]}, r"got \['residual'\]"),
        ({"sections": [model_pb2.Section(name="model", codec=5)]}, "codec 5"),
        ({"sections": [model_pb2.Section(name="model", codec=1)]}, "at least one tensor"),
        ({"sections": [model_pb2.Section(name="model", codec=1, opaque_bytes=20)]}, "at least one tensor"),
        (
            {"sections": [model_pb2.Section(name="model", codec=1, layout=SMALL.to_proto(), encoded_bytes=2**63)]},
            "declares 9223372036854775808 bytes, its layout has 20",
        ),
        ({"sections": [model_section(Layout.of({"v": np.zeros(5)}))]}, "another layout: tensor 'w' is missing"),
        ({"report": pb.TrainingReport()}, "0 training examples"),
        ({"report": pb.TrainingReport(examples=2**64 - 1)}, "18446744073709551615 training examples"),
        ({"report": pb.TrainingReport(examples=1, batches=2**63)}, "batches"),
        ({"report": pb.TrainingReport(examples=1, seconds=float("nan"))}, "nan s"),
        ({"report": pb.TrainingReport(examples=1, epochs=float("inf"))}, "inf epochs"),
        (
            {"report": pb.TrainingReport(examples=1, metrics=[model_pb2.Metric(name="loss", value=float("nan"))])},
            "metric 'loss' is nan",
        ),
        (
            {"report": pb.TrainingReport(examples=1, metrics=[model_pb2.Metric(name="x")] * (MAX_METRICS + 1))},
            "65 metrics",
        ),
    ],
)
async def test_hostile_headers_are_refused(uploads: Uploads, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UploadError, match=complaint.replace("[]", r"\[\]")):
        uploads.begin(TASK, header(**changes), SMALL, "stream")
    assert uploads.stale(lambda _: False) == []


@pytest.mark.parametrize(
    "evaluation",
    [
        pb.Evaluation(examples=2**64 - 1),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name="", value=1)]),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name="x" * (MAX_METRIC_NAME + 1), value=1)]),
        pb.Evaluation(examples=1, metrics=[model_pb2.Metric(name="a", value=float("inf"))]),
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
    upload = Upload(TASK, LARGE, arriving, place, pb.TrainingReport())
    for offset, size in pieces:
        data = memoryview(CONTENT)[offset : offset + size] if offset < len(CONTENT) else memoryview(b"?")
        with suppress(FrameError):
            await upload.take(ChunkFrame(0, offset, data, 0))
    received = arriving.received
    assert received in (0, CHUNK_BYTES, LARGE.nbytes)
    assert buffer.tobytes()[:received] == CONTENT[:received]
    assert not buffer[received:].any()

"""Uploads under way: where each stands, which slot it fills, and whether what has arrived is whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.proto.v1 import model_pb2
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.frames import ChunkFrame
from metisfl.wire.layout import Buffer, Layout, LayoutError
from metisfl.wire.limits import MAX_COUNT, MAX_METRIC_NAME, MAX_METRICS, METRIC_NAME
from metisfl.wire.reassembly import Reassembly
from metisfl.wire.sections import Sections
from metisfl_controller.aggregation.admission import Use
from metisfl_controller.aggregation.memory import ModelMemory
from metisfl_controller.aggregation.staging import Place, StagingPool, remove_left_overs
from metisfl_controller.rounds.tasks import Kind, TaskId
from metisfl_controller.state.models import RESERVED_NAME

WRITERS = 4
"""Threads that write uploads to disk, which is as many as have slots."""


_METRIC_NAME = re.compile(METRIC_NAME)


class UploadError(ValueError):
    """What the learner sent cannot be used; the message goes back to it."""


@dataclass(eq=False)
class Upload:
    """One task's result on its way in. A broken stream leaves it here, and the next one goes on where it broke."""

    task: TaskId
    sections: Sections
    arriving: Reassembly
    place: Place
    report: pb.TrainingReport
    stream: object = None
    """Whose stream fills it now; another stream for the same task takes over by setting its own."""
    verdict: asyncio.Task[tuple[pb.Outcome.ValueType, str]] | None = None
    """Set once the whole has arrived: from then on nothing is written to its place, whoever asks gets this."""

    async def take(self, chunk: ChunkFrame) -> None:
        """Put a chunk in its place, without waiting if that is in memory. Raises FrameError when it is not the one that
        follows, and OSError when the disk fails."""
        self.arriving.take(chunk)
        writing = self.place.write(self.sections.starts[chunk.section] + chunk.offset, chunk.data)
        if writing is not None:
            await writing


class Uploads:
    """All uploads that have begun and not ended, by task."""

    def __init__(self, memory: ModelMemory, log: ContextLogger) -> None:
        remove_left_overs(memory.directory)
        self._memory = memory
        self._log = log
        self._executor = ThreadPoolExecutor(WRITERS, thread_name_prefix="staging")
        self._pool: StagingPool | None = None
        self._open: dict[TaskId, Upload] = {}

    def begin(
        self,
        task: TaskId,
        header: pb.UploadHeader,
        agreed: Sections | None,
        stream: object,
    ) -> Upload:
        """A new upload, which may have to wait until it is let in, or the one that a broken stream left.

        `agreed` is what results of training consist of; the initial model, which decides the layout, comes whole and in
        Float32. Raises UploadError.
        """
        upload = self._open.get(task)
        if upload is not None and upload.verdict is not None:
            return upload
        sections = _declared_sections(header, agreed)
        _check_report(header.report, task.kind)
        if upload is not None and upload.sections.model.layout.digest != sections.model.layout.digest:
            upload.stream = None
            self.drop(upload)
            upload = None
        if upload is None:
            arriving = Reassembly(*sections.sizes)
            place = self._pool_for(sections).request(lambda: sections.starts[arriving.section] + arriving.offset)
            upload = Upload(task, sections, arriving, place, header.report)
            self._open[task] = upload
        upload.report, upload.stream = header.report, stream
        upload.place.turn(Use.FILLING)
        return upload

    def of(self, task: TaskId) -> Upload:
        """The open upload of a task. Raises KeyError."""
        return self._open[task]

    def leave_to_be_resumed(self, upload: Upload) -> None:
        """Nobody fills it for now. One that has not been let in yet has nothing to go on with, and is dropped."""
        upload.stream = None
        if upload.place.let_in.done() and not upload.place.has_left:
            upload.place.turn(Use.BROKEN)
        else:
            self.drop(upload)

    def drop(self, upload: Upload) -> None:
        """Free its place, after which nothing may use its content; harmless when that happened before."""
        if self._open.get(upload.task) is upload:
            del self._open[upload.task]
            upload.place.leave()

    def hand_over(self, upload: Upload) -> bool:
        """End an upload whose place the caller frees; false when that has happened already."""
        return self._open.pop(upload.task, None) is upload

    def keep(self, upload: Upload) -> Buffer:
        """End an upload and own its content."""
        del self._open[upload.task]
        return upload.place.keep()

    def stale(self, expected: Callable[[TaskId], bool]) -> list[Upload]:
        """Uploads whose task no longer counts."""
        return [upload for upload in self._open.values() if not expected(upload.task)]

    def close(self) -> None:
        """Wait for what is being written."""
        self._executor.shutdown()

    def _pool_for(self, sections: Sections) -> StagingPool:
        plan = self._memory.plan(sections.model.layout, upload_bytes=sections.nbytes)
        if self._pool is None or self._pool.plan != plan:
            # Places of an earlier pool are freed as their uploads end.
            self._pool = StagingPool(self._memory.directory, plan, self._executor, self._log)
            where = "on disk" if plan.on_disk else "in memory"
            self._log.info("uploads are staged %s", where, extra={"slots": plan.slots, "bytes": plan.slot_bytes})
        return self._pool


def _declared_sections(header: pb.UploadHeader, agreed: Sections | None) -> Sections:
    sections = agreed or _initial_sections(header.sections)
    updates = sections.model.updates
    if header.kind != (pb.UPLOAD_KIND_UPDATE if updates else pb.UPLOAD_KIND_MODEL):
        wanted = "the update, trained less received weights" if updates else "whole weights"
        raise UploadError(f"upload kind {header.kind} does not fit; send {wanted}")
    if mismatch := sections.mismatch(header.sections):
        raise UploadError(mismatch)
    for (name, encoding), section in zip(sections.encodings, header.sections, strict=True):
        if not encoding.layout.is_described_by(section.layout):
            _check_layout(name, section.layout, encoding.layout)
    return sections


def _initial_sections(announced: Sequence[model_pb2.Section]) -> Sections:
    """Of the model that decides the layout: it comes alone."""
    layout = announced[0].layout if announced else model_pb2.Layout()
    return Sections.of(Encoding(_initial_layout(layout), Codec.FLOAT32))


def _initial_layout(message: model_pb2.Layout) -> Layout:
    layout = _layout(message)
    if any(tensor.name == RESERVED_NAME for tensor in layout.tensors):
        raise UploadError(f"no tensor may be called '{RESERVED_NAME}': model files keep something else under that name")
    return layout


def _check_layout(name: str, message: model_pb2.Layout, expected: Layout) -> None:
    if differences := expected.difference(_layout(message)):
        raise UploadError(f"the {name} has another layout: " + "; ".join(differences))


def _layout(message: model_pb2.Layout) -> Layout:
    try:
        return Layout.from_proto(message)
    except LayoutError as error:
        raise UploadError(str(error)) from error


def _check_report(report: pb.TrainingReport, kind: Kind) -> None:
    for what, count in (("training examples", report.examples), ("batches", report.batches)):
        if kind is Kind.TRAIN and count == 0:
            raise UploadError(f"the report says 0 {what}; updates are weighed by them")
        if count > MAX_COUNT:
            raise UploadError(f"the report says {count} {what}, at most {MAX_COUNT} are taken")
    if not (np.isfinite(report.seconds) and np.isfinite(report.epochs)):
        raise UploadError(f"the report says {report.epochs} epochs in {report.seconds} s; give finite numbers")
    check_metrics(report.metrics)


def check_evaluation(evaluation: pb.Evaluation) -> None:
    """Raises UploadError for what can be neither weighed nor displayed."""
    if evaluation.examples > MAX_COUNT:
        raise UploadError(f"{evaluation.examples} held-out examples, at most {MAX_COUNT} are taken")
    check_metrics(evaluation.metrics)


def check_metrics(metrics: Iterable[model_pb2.Metric]) -> None:
    """Raises UploadError for names or values that nobody could display."""
    listed = list(metrics)
    if len(listed) > MAX_METRICS:
        raise UploadError(f"{len(listed)} metrics, at most {MAX_METRICS} are taken")
    for metric in listed:
        if len(metric.name) > MAX_METRIC_NAME or not _METRIC_NAME.fullmatch(metric.name):
            raise UploadError(
                f"a metric is named {metric.name[:80]!r}; names are letters, digits and _, at most {MAX_METRIC_NAME}"
            )
        if not np.isfinite(metric.value):
            raise UploadError(f"metric '{metric.name}' is {metric.value}; metrics are finite")

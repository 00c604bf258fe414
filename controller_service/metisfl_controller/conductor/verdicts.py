"""Judges uploads that have arrived: what counts goes to the round, and nobody's counts twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.sections import MODEL_SECTION
from metisfl_controller.aggregation.admission import Use
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.conductor.background import Background
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.tasks import Kind, TaskId
from metisfl_controller.server.uploads import Upload, Uploads
from metisfl_controller.state.records import Contribution
from metisfl_controller.state.registry import Registry


@dataclass(eq=False)
class Verdicts:
    """`accepted` is what the open round, or the initial model, is made of. `handle` hears each verdict."""

    engine: Engine
    uploads: Uploads
    registry: Registry
    background: Background
    expects: Callable[[TaskId], bool]
    will_expect: Callable[[TaskId], bool]
    """Between two rounds: whether the task may count in the one that is about to begin."""
    why_late: Callable[[TaskId], str]
    handle: Callable[[m.Event], None]
    log: ContextLogger
    accepted: dict[TaskId, Contribution] = field(default_factory=dict)
    _moved_on: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False

    def was_accepted(self, task: TaskId) -> bool:
        return task in self.accepted

    def uncommitted(self, learner: str) -> list[str]:
        """Tasks of this learner that were accepted and are in no committed version."""
        return [str(task) for task in self.accepted if task.learner == learner]

    def needs(self, task: TaskId) -> bool:
        """Whether an upload of this task is, or may still be, of use."""
        return self.expects(task) or self.will_expect(task) or task in self.accepted

    async def verified(self, upload: Upload) -> tuple[pb.Outcome.ValueType, str]:
        """Judge a whole upload and, if it counts, hand it to the round. Its place is freed when it has been used.

        An upload is judged once, to the end, and all who wait for it hear the same: its stream may break meanwhile and
        another ask again.
        """
        if upload.verdict is None:
            upload.place.turn(Use.WORKED_ON)
            upload.verdict = self.background.start(self._judge(upload))
        return await asyncio.shield(upload.verdict)

    async def _judge(self, upload: Upload) -> tuple[pb.Outcome.ValueType, str]:
        flaw = await self._flaw(upload)
        task = upload.task
        while self.will_expect(task) and not self._closed:
            # Its round has closed without it, and the one that it counts in has not begun.
            upload.place.turn(Use.PARKED)
            await self._moved_on.wait()
        if not self.expects(task):
            self.uploads.drop(upload)
            return pb.OUTCOME_LATE, self.why_late(task)
        if flaw is not None:
            self.rejected(task, flaw)
            self.uploads.drop(upload)
            return pb.OUTCOME_REJECTED, flaw
        self.registry.learners[task.learner].message = ""
        report = upload.report
        metrics = {metric.name: metric.value for metric in report.metrics}
        self.accepted[task] = Contribution(report.examples, report.batches, report.seconds, metrics)
        if task.kind is Kind.INITIALISE:
            self.handle(m.InitialModelVerified(task))
        else:
            self.handle(m.UpdateVerified(task, m.Work(report.examples, report.batches, report.seconds, metrics)))
        return pb.OUTCOME_ACCEPTED, ""

    async def _flaw(self, upload: Upload) -> str | None:
        """Why one of its sections cannot be used."""
        for name, encoding, content in upload.sections.of_place(upload.place.buffer):
            if flaw := await self.engine.flaw(encoding, content):
                return flaw if name == MODEL_SECTION else f"section '{name}': {flaw}"
        return None

    def rejected(self, task: TaskId, message: str) -> None:
        """A result must not be used; the round goes on without it."""
        learner = self.registry.learners[task.learner]
        learner.message = f"update refused: {message}"
        self.log.error("update refused: %s", message, extra={"learner": learner.id, "task": str(task)})
        self.handle(m.UpdateRejected(task) if task.kind is Kind.TRAIN else m.TaskFailed(task))

    def drop(self, task: TaskId, reason: str) -> None:
        """An accepted result that was not folded does not count after all."""
        del self.accepted[task]
        self.uploads.drop(self.uploads.of(task))
        self.log.info("update dropped: %s", reason, extra={"learner": task.learner, "task": str(task)})

    def close(self) -> None:
        """Nobody hears a verdict any more, so none waits for the next round."""
        self._closed = True
        self._moved_on.set()

    def move_on(self) -> None:
        """The machine is in another phase: judge what has waited for that, and free the places of uploads that nobody
        needs any more."""
        self._moved_on.set()
        self._moved_on = asyncio.Event()
        for upload in self.uploads.stale(self.needs):
            # A stream that still fills it notices, answers LATE and frees its place itself.
            if upload.stream is None:
                self.uploads.drop(upload)

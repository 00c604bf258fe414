"""Learners come and go: their leases, and the streams on which they are told what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from metisfl.logs import ContextLogger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.layout import Layout
from metisfl_controller.clock import Clock
from metisfl_controller.conductor.needs import Need
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.conductor.task_messages import stop_message
from metisfl_controller.rounds import messages as m
from metisfl_controller.state.registry import Learner, Registry


@dataclass(eq=False)
class TaskStream:
    """One learner's open Tasks call: what is put in `outbox` is sent; an exception in it ends the stream."""

    learner: Learner
    outbox: asyncio.Queue[pb.Task | Exception] = field(default_factory=asyncio.Queue)


class StreamRefusedError(Exception):
    """Ends a learner's task stream for good; the text goes to the learner."""


class LeaseEndedError(Exception):
    """Ends a learner's task stream; it may join again."""


@dataclass(eq=False)
class Attendance:
    """Who is there, on which stream. `handle` hears of learners that are ready and of those that are lost."""

    registry: Registry
    progress: Progress
    handle: Callable[[m.Event], None]
    clock: Clock
    log: ContextLogger
    needs: Sequence[Need] = ()
    """What learners' code must be able to do."""
    _streams: dict[str, TaskStream] = field(default_factory=dict)

    # ---- coming

    def join(self, request: pb.JoinRequest) -> Learner:
        """Raises JoinRefusedError."""
        missing = self.progress.transport.unsupported_by(request)
        if missing is not None:
            self.registry.refuse(
                request.group,
                request.ordinal,
                f"this federation's models travel with {missing}, which this learner's release cannot do: use a "
                "learner image of the controller's release, or change spec.transport",
            )
        evaluates_only = request.group in self.registry.evaluators
        for need in self.needs:
            if need.capability not in request.capabilities and not evaluates_only:
                self.registry.refuse(request.group, request.ordinal, need.message)
        learner = self.registry.join(request.group, request.ordinal, request.framework[:63], self.clock())
        self._end_stream(learner, StreamRefusedError(f"another process has joined as {learner.id}"))
        self.log.info("joined", extra={"learner": learner.id, "framework": learner.framework})
        return learner

    def open_stream(self, learner: Learner, ready: pb.Ready, layout: Layout) -> TaskStream:
        """The learner can take tasks. Raises StreamRefusedError when its model does not fit the federation's."""
        expected = self.progress.layout
        if expected is not None and expected.digest != layout.digest:
            message = _layout_message(expected, layout)
            self._lose(learner, message)
            raise StreamRefusedError(message)
        # One layout for all: ten thousand equal ones would take more memory than their connections.
        learner.layout = expected or layout
        learner.train_examples, learner.test_examples = ready.train_examples, ready.test_examples
        learner.ready, learner.message = True, ""
        self._end_stream(learner, LeaseEndedError("another task stream was opened with it"))
        stream = self._streams[learner.id] = TaskStream(learner)
        self.log.info(
            "ready",
            extra={"learner": learner.id, "train": ready.train_examples, "test": ready.test_examples},
        )
        if self.progress.outcome is not None:
            stream.outbox.put_nowait(stop_message(self.progress.outcome))
        else:
            self.handle(_is_ready(learner, ready))
        return stream

    # ---- being there

    def connected(self, *, evaluators: bool) -> int:
        """How many evaluators, or learners that train, have a stream."""
        return sum(stream.learner.evaluator == evaluators for stream in self._streams.values())

    def is_connected(self, learner: Learner) -> bool:
        return learner.id in self._streams

    def send(self, learner: str, task: pb.Task) -> None:
        """To a learner without a stream, nothing is sent: it hears what is to do when it opens one."""
        stream = self._streams.get(learner)
        if stream is not None:
            task.counted = self.progress.counted.get(learner, "")
            stream.outbox.put_nowait(task)

    def send_all(self, task: pb.Task) -> None:
        for stream in self._streams.values():
            stream.outbox.put_nowait(task)

    # ---- going

    def close_stream(self, stream: TaskStream) -> None:
        """The connection is gone; the learner has its lease's time to come back."""
        if self._streams.get(stream.learner.id) is stream:
            del self._streams[stream.learner.id]
            self.log.info("connection closed", extra={"learner": stream.learner.id})

    def leave(self, learner: Learner, error: str) -> None:
        """The learner goes on purpose, or because it cannot take part."""
        if error:
            self.log.error("learner failed: %s", error, extra={"learner": learner.id})
            self._lose(learner, error)
        else:
            self.log.info("left", extra={"learner": learner.id})
            self._end_lease(learner, "", "Left")

    def end_expired(self) -> None:
        for learner in self.registry.expired(self.clock()):
            self._lose(learner, f"silent for more than {self.registry.lease_seconds:g} s")

    def renew_outdated(self) -> None:
        """Learners whose parameters have changed have to join again, and start over with the new ones."""
        for learner in self.registry.outdated():
            self._end_lease(learner, "its parameters have changed", "Lost")

    def require(self, needs: Sequence[Need]) -> None:
        """What learners' code must be able to do from now on. When that is more than before all have to join again, and
        who cannot do it is refused then."""
        more = {need.capability for need in needs} - {need.capability for need in self.needs}
        self.needs = needs
        if more:
            for learner in self.registry.present():
                self._end_lease(learner, "what learners must be able to do has changed", "Lost")

    def shut_out(self, revoked: Collection[str]) -> None:
        """These learners are not trusted any more: their leases end, and they are not to come back."""
        for learner in [self.registry.learners[name] for name in revoked if name in self.registry.learners]:
            if learner.lease:
                self._end_stream(learner, StreamRefusedError(f"{learner.id} is listed in spec.security.revoked"))
                self._lose(learner, "listed in spec.security.revoked")

    def end_displaced(self) -> None:
        """Learners whose group has become too small for them, or is no more, have no part in the federation."""
        for learner in self.registry.displaced():
            words = f"{learner.id} has no place in the federation any more"
            self._end_stream(learner, StreamRefusedError(words))
            self._lose(learner, words)

    def refuse_others(self, layout: Layout) -> None:
        """This is the federation's layout from now on: learners with another have no place in it."""
        for learner in self.registry.others(layout):
            assert learner.layout is not None
            message = _layout_message(layout, learner.layout)
            self._end_stream(learner, StreamRefusedError(message))
            self._lose(learner, message)

    def _lose(self, learner: Learner, why: str) -> None:
        self.log.warning("lost: %s", why, extra={"learner": learner.id})
        self._end_lease(learner, why, "Lost")

    def _end_lease(self, learner: Learner, message: str, activity: str) -> None:
        self.registry.end(learner, message, activity)
        self._end_stream(learner, LeaseEndedError(message))
        self.handle(m.EvaluatorLost(learner.id) if learner.evaluator else m.LearnerLost(learner.id))

    def _end_stream(self, learner: Learner, why: Exception) -> None:
        stream = self._streams.pop(learner.id, None)
        if stream is not None:
            stream.outbox.put_nowait(why)


def _is_ready(learner: Learner, ready: pb.Ready) -> m.Event:
    if learner.evaluator:
        return m.EvaluatorReady(learner.id, ready.running_task)
    return m.LearnerReady(learner.id, tuple(ready.held_tasks), ready.running_task, ready.train_examples)


def _layout_message(expected: Layout, found: Layout) -> str:
    return "this learner's model has another layout than the federation's: " + "; ".join(expected.difference(found))

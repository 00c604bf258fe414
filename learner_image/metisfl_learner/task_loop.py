"""What a learner does about each task the controller sends; pure, so that it can be tested without a connection.

The learner works on one task at a time, and a newer order replaces the one under way. Results it has finished are
*held* until they are known to be committed: a restarted controller may ask for them again, so no training is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.limits import MAX_HELD_TASKS
from metisfl_learner.work import Result

_WORK = frozenset({pb.TASK_KIND_INITIALISE, pb.TASK_KIND_TRAIN, pb.TASK_KIND_EVALUATE})


@dataclass(frozen=True)
class Start:
    """Begin this task."""

    task: pb.Task


@dataclass(frozen=True)
class Cancel:
    """Abandon the task that is being worked on."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class Send:
    """Upload this held result, unless its upload is under way."""

    result: Result


@dataclass(frozen=True)
class Accepted:
    """The controller has accepted this held result, whether or not the receipt of its upload has come."""

    task_id: str


@dataclass(frozen=True)
class Forget:
    """A held result is not needed any more; end its upload."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """Send this message."""

    message: pb.LearnerMessage


@dataclass(frozen=True)
class Note:
    """Tell the person who reads the log."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Stop:
    """The federation has ended."""

    reason: str


Action = Start | Cancel | Send | Accepted | Forget | Answer | Note | Stop


@dataclass
class TaskLoop:
    """What is being worked on and what is held."""

    running: pb.Task | None = None
    held: dict[str, Result] = field(default_factory=dict)
    evaluation: pb.Evaluation | None = None
    """The last one made. Evaluations are not acknowledged, so it is sent again when a stream was broken."""

    def receive(self, task: pb.Task) -> list[Action]:
        """What to do about a task, in this order."""
        if task.kind in _WORK:
            return [*self._accepted(task), *self._forget_committed(task), *self._order(task)]
        if task.kind == pb.TASK_KIND_WAIT:
            return [Note(task.reason or "nothing to do yet")]
        if task.kind == pb.TASK_KIND_RESEND:
            return self._resend(task.task_id)
        if task.kind == pb.TASK_KIND_DISCARD:
            reason = task.reason or "the controller does not want it any more"
            return [*self._accepted(task), *self._discard(task.task_id, reason)]
        if task.kind == pb.TASK_KIND_STOP:
            return [Stop(task.reason or "the federation has ended")]
        return [Note(f"a task of unknown kind {task.kind} was left alone; this learner may be too old", warning=True)]

    def trained(self, result: Result) -> list[Action]:
        """The running task has a result: hold it and send it."""
        self.running = None
        self.held[result.task_id] = result
        oldest = list(self.held)[:-MAX_HELD_TASKS]
        return [*(self._forget(task_id, "too many results are held") for task_id in oldest), Send(result)]

    def evaluated(self, evaluation: pb.Evaluation) -> list[Action]:
        """A model has been evaluated."""
        self.evaluation = evaluation
        return [Answer(pb.LearnerMessage(evaluation=evaluation))]

    def ended(self, task_id: str) -> None:
        """Nothing more will be done for this task."""
        if self.running is not None and self.running.task_id == task_id:
            self.running = None

    def received(self, task_id: str, receipt: pb.Receipt) -> list[Action]:
        """The controller's verdict on an upload. What it accepted stays held until it is committed."""
        if task_id not in self.held or receipt.outcome in (pb.OUTCOME_ACCEPTED, pb.OUTCOME_DUPLICATE):
            return []
        if receipt.outcome == pb.OUTCOME_LATE:
            return [self._forget(task_id, receipt.message or "the round had closed")]
        return [
            self._forget(task_id, "the controller rejected it"),
            Note(f"the update was rejected: {receipt.message or 'no reason was given'}", warning=True),
        ]

    def ready(self) -> tuple[list[str], str]:
        """For Ready: the held tasks, and the one being worked on."""
        return list(self.held), self.running.task_id if self.running is not None else ""

    def _order(self, task: pb.Task) -> list[Action]:
        if self.running is not None and self.running.task_id == task.task_id:
            return []
        if task.task_id in self.held:
            return [Send(self.held[task.task_id])]
        if (
            task.kind == pb.TASK_KIND_EVALUATE
            and self.evaluation is not None
            and self.evaluation.task_id == task.task_id
        ):
            return [Answer(pb.LearnerMessage(evaluation=self.evaluation))]
        actions = self._cancel("another task replaces it")
        self.running = task
        return [*actions, Start(task)]

    def _accepted(self, task: pb.Task) -> list[Action]:
        """What the controller says about results whose receipts may still be on their way, or never come."""
        return [Accepted(task_id) for task_id in self.held if task_id in (task.counted, *task.uncommitted)]

    def _forget_committed(self, task: pb.Task) -> list[Action]:
        """A version that a result goes into exists: the result is in it, or came too late for it; unless the controller
        says that it is still to be."""
        if task.kind == pb.TASK_KIND_INITIALISE:
            return []
        made = [task_id for task_id, result in self.held.items() if result.produces <= task.model_version]
        done = [task_id for task_id in made if task_id not in task.uncommitted]
        return [self._forget(task_id, f"version {task.model_version} is committed") for task_id in done]

    def _resend(self, task_id: str) -> list[Action]:
        if task_id in self.held:
            return [Send(self.held[task_id])]
        if self.running is not None and self.running.task_id == task_id:
            return []
        failure = pb.TaskFailure(task_id=task_id, message="the result of this task is not held any more")
        return [Answer(pb.LearnerMessage(failure=failure))]

    def _discard(self, task_id: str, reason: str) -> list[Action]:
        if task_id in self.held:
            return [self._forget(task_id, reason)]
        if self.running is not None and self.running.task_id == task_id:
            return self._cancel(reason)
        return []

    def _cancel(self, reason: str) -> list[Action]:
        if self.running is None:
            return []
        task_id, self.running = self.running.task_id, None
        return [Cancel(task_id, reason)]

    def _forget(self, task_id: str, reason: str) -> Forget:
        del self.held[task_id]
        return Forget(task_id, reason)

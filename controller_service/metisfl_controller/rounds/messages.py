"""What goes into the state machine (events) and what comes out of it (commands)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metisfl.spec.termination import MetricSource
from metisfl_controller.rounds.evaluation import Mean, Report
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.tasks import Order, TaskId
from metisfl_controller.rounds.work import Work as Work

# Events


@dataclass(frozen=True)
class LearnerReady:
    """A learner opened its task stream; it may hold results or still be at work from before."""

    learner: str
    held: tuple[str, ...] = ()
    running: str = ""
    examples: int = 0
    """Of its training data."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """All that it brings along, the task at work last."""
        return (*self.held, self.running) if self.running else self.held


@dataclass(frozen=True)
class LearnerLost:
    """Its lease ran out, it left, or it was refused."""

    learner: str


@dataclass(frozen=True)
class InitialModelVerified:
    """The initial weights have arrived, complete and finite."""

    task: TaskId


@dataclass(frozen=True)
class UpdateVerified:
    """A training result has arrived, complete and finite."""

    task: TaskId
    work: Work


@dataclass(frozen=True)
class UpdateRejected:
    """A training result arrived that must not be used."""

    task: TaskId


@dataclass(frozen=True)
class TaskFailed:
    """The learner's code raised."""

    task: TaskId


@dataclass(frozen=True)
class Evaluated:
    """A learner's metrics of a version."""

    learner: str
    version: int
    report: Report


@dataclass(frozen=True)
class EvaluatorReady:
    """An evaluator opened its task stream; it may still be at work from before."""

    evaluator: str
    running: str = ""


@dataclass(frozen=True)
class EvaluatorLost:
    """Its lease ran out, it left, or it was refused."""

    evaluator: str


@dataclass(frozen=True)
class EvaluatorReported:
    """An evaluator's metrics of a version."""

    evaluator: str
    version: int
    report: Report


@dataclass(frozen=True)
class Committed:
    """The version the machine asked for is durable."""

    version: int


@dataclass(frozen=True)
class AggregationFailed:
    """The round's updates could not be combined."""

    message: str


@dataclass(frozen=True)
class PlanChanged:
    """The federation's spec was edited; the new plan holds from the next round on."""

    plan: Plan


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = (
    LearnerReady
    | LearnerLost
    | InitialModelVerified
    | UpdateVerified
    | UpdateRejected
    | TaskFailed
    | Evaluated
    | EvaluatorReady
    | EvaluatorLost
    | EvaluatorReported
    | Committed
    | AggregationFailed
    | PlanChanged
    | Tick
)

# Commands


@dataclass(frozen=True)
class Dispatch:
    """Send a task."""

    order: Order


@dataclass(frozen=True)
class Resend:
    """Ask a learner to upload a result that it holds."""

    order: Order


@dataclass(frozen=True)
class Discard:
    """Tell a learner to abandon or forget a task."""

    learner: str
    task: str
    reason: str


@dataclass(frozen=True)
class Wait:
    """Tell a learner why there is nothing to do."""

    learner: str
    reason: str


@dataclass(frozen=True)
class PlanAdopted:
    """From here on a changed plan holds."""


@dataclass(frozen=True)
class AdoptInitialModel:
    """Commit this upload as version 0."""

    task: TaskId


@dataclass(frozen=True)
class BeginRound:
    """Empty the accumulator."""

    number: int


@dataclass(frozen=True)
class Fold:
    """This verified upload counts, with this weight. `steps`: batches of local training that it took. `scale`: what the
    update is multiplied by, 0 … 1, such as a discount for staleness."""

    task: TaskId
    weight: float
    steps: int
    scale: float = 1.0


@dataclass(frozen=True)
class Drop:
    """This verified upload does not count after all: it had to wait for so long."""

    task: TaskId
    reason: str


@dataclass(frozen=True)
class CommitRound:
    """Finish the mean and make it durable."""

    number: int
    attempts: int
    started_at: float
    participants: tuple[str, ...]
    contributors: tuple[str, ...]
    lost: tuple[str, ...]
    tasks: tuple[TaskId, ...]
    """What is in it."""


@dataclass(frozen=True)
class RecordMetrics:
    """The metrics of a version are known."""

    version: int
    means: Mapping[str, Mean]
    source: MetricSource = MetricSource.LEARNERS
    conclusive: bool = True
    """Whether they count for the end of the federation; if not, more may come, or too few have reported."""


@dataclass(frozen=True)
class Remark:
    """Something is not as it was probably meant; a sentence for the log."""

    text: str


@dataclass(frozen=True)
class VersionsMissed:
    """An evaluator was busy or away while these versions were the newest."""

    evaluator: str
    first: int
    last: int


@dataclass(frozen=True)
class End:
    """The federation is over; `published` is the version that counts, None if there is none."""

    complete: bool
    reason: str
    message: str
    published: int | None


Command = (
    Dispatch
    | Resend
    | Discard
    | Wait
    | PlanAdopted
    | AdoptInitialModel
    | BeginRound
    | Fold
    | Drop
    | CommitRound
    | RecordMetrics
    | VersionsMissed
    | Remark
    | End
)

"""What the state machine asks of the training between the initial model and the end, whatever the protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Protocol

from metisfl_controller.rounds.evaluation import Evaluation, Report
from metisfl_controller.rounds.participation import Participant
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.rounds.work import Work


@dataclass(frozen=True)
class RoundStatus:
    """The model version in the making, for people. Times are on the clock of the machine's `now`."""

    number: int
    attempt: int
    participants: int
    """Learners at work on it, or who have delivered."""

    contributions: int
    quorum: int
    """Contributions without which it is not committed."""

    started_at: float
    deadline_at: float


@dataclass(frozen=True)
class Close:
    """Commit what has been delivered."""


@dataclass(frozen=True)
class GiveUp:
    """The federation has failed."""

    reason: str
    message: str


Step = Close | GiveUp


@dataclass(frozen=True)
class Judged:
    """Metrics of a version that are as complete as they will be. `enough`: learners have reported whose word counts for
    the federation's target."""

    evaluation: Evaluation
    enough: bool


class Training(Protocol):
    """Makes one model version after the other: `begin`, what learners do, `next_step` until it says Close, `commit`,
    and `committed` once that is durable. Times are on the clock of the machine's `now`."""

    @property
    def status(self) -> RoundStatus | None:
        """The version in the making; None between two."""

    @property
    def participants(self) -> Mapping[str, Participant]:
        """Who has a part in the round under way; nobody where there are no rounds."""

    @property
    def versions(self) -> Set[int]:
        """Earlier versions that tasks under way refer to, beside the newest."""

    def adopt(self, plan: Plan) -> None:
        """A changed plan holds from the next version on; its protocol is the same."""

    def begin(self, version: int, reports: Mapping[str, Report], now: float) -> None:
        """Make the next version of this one. `reports`: metrics of it that have come already."""

    def appeared(self, learner: str, now: float) -> bool:
        """A learner is ready; says whether it has something to do."""

    def lost(self, learner: str) -> None: ...

    def heed_places(self, has_place: Callable[[str], bool]) -> None:
        """Wait no longer for who is gone and has no place any more, scaled away or shut out; but again for who has its
        place again."""

    def expects(self, task: TaskId) -> bool:
        """Whether this task's result would count if it arrived now."""

    def will_expect(self, task: TaskId, version: int | None) -> bool:
        """Whether this task's result may count as soon as the next version of `version` is begun."""

    def why_late(self, task: TaskId) -> str:
        """Why a result that is not expected does not count."""

    def delivered(self, task: TaskId, work: Work, now: float) -> None:
        """An expected result has arrived."""

    def rejected(self, task: TaskId) -> None:
        """An expected result must not be used."""

    def failed(self, task: TaskId) -> None: ...

    def reported(self, learner: str, version: int, report: Report) -> None:
        """A learner's metrics of a version."""

    def judged(self, now: float, *, closing: bool) -> Judged | None:
        """The metrics that are complete, or, when the version in the making is `closing`, will not become so; once."""

    def next_step(self, now: float, *, last: bool) -> Step | None:
        """What the version in the making calls for; None while there is something to wait for. Gives out work, unless
        time is up and this is the `last` step."""

    def commit(self) -> None:
        """Close the version in the making: nothing more can go into it."""

    def committed(self, version: int) -> None:
        """This is the newest version now."""

    def abandon(self, reason: str) -> None:
        """There will be no further version: whoever is at work may stop."""

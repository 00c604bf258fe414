"""Training without rounds: learners work without pause, and every `size` updates make a new model version.

    size = 1 (FedAsync, arXiv 1903.03934)    x ← (1 − α)·x + α·x_k,   α = mixing · s(τ)
    size > 1 (FedBuff, arXiv 2106.06639)     x ← x + mixing · Σ_k n_k · s(τ_k) · Δ_k / Σ_k n_k

x_k is the model of learner k, Δ_k what its training changed, n_k its weight by `spec.aggregation.weighting` (of no
account when it is alone), and τ_k how many versions were made since its own base.

A learner has its next task as soon as it has delivered, from the newest version; only while one is being written it
waits for that. So a fast learner never waits for others, and may have several updates in one version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Set

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.arrivals import Arrivals
from metisfl_controller.rounds.evaluation import Evaluation, Report
from metisfl_controller.rounds.learners import Learners, by_number
from metisfl_controller.rounds.participation import Participant
from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.protocols.parameters import Buffering
from metisfl_controller.rounds.survey import Survey
from metisfl_controller.rounds.tasks import Kind, Order, TaskId
from metisfl_controller.rounds.training import Close, GiveUp, Judged, RoundStatus, Step
from metisfl_controller.rounds.work import Work

_SEEDS_A_VERSION = 1 << 20


class BufferTraining:
    """What is a round elsewhere is here the filling of one buffer: number n makes version n; see `Training`."""

    def __init__(
        self,
        plan: Plan,
        buffering: Buffering,
        learners: Learners,
        say: Callable[[m.Command], None],
        resumed: Resumed,
    ) -> None:
        self._plan = plan
        self._learners = learners
        self._say = say
        self._arrivals = Arrivals(buffering, resumed.version or 0, resumed.counted)
        self._work: dict[str, set[TaskId]] = {}
        """What each learner is at, or holds the result of and was asked for."""
        self._survey = Survey(learners)
        self._failed: set[str] = set()
        """Given no task before something has changed: it would fail again."""
        self._given: Counter[str] = Counter()
        """Tasks that each learner was given from the newest version."""
        self._begun = self._open = False
        """A version is in the making; its buffer takes results."""
        self._attempt = 1
        self._began_at = self._heard_at = 0.0
        """When this version was begun; when a result came last, or there was a reason to begin waiting anew."""

    # ---- what is shown and what is expected

    @property
    def status(self) -> RoundStatus | None:
        if not self._begun:
            return None
        return RoundStatus(
            number=self._newest + 1,
            attempt=self._attempt,
            participants=len(self._busy | {task.learner for task in self._arrivals.buffer}),
            contributions=len(self._arrivals.buffer),
            quorum=self._arrivals.buffering.size,
            started_at=self._began_at,
            deadline_at=self._deadline_at,
        )

    @property
    def participants(self) -> Mapping[str, Participant]:
        return {}

    @property
    def versions(self) -> Set[int]:
        surveyed = set() if self._survey.version is None else {self._survey.version}
        return surveyed | {task.base_version for task in self._tasks}

    def expects(self, task: TaskId) -> bool:
        return task in self._work.get(task.learner, ())

    def will_expect(self, task: TaskId, version: int | None) -> bool:
        return False

    def why_late(self, task: TaskId) -> str:
        if self._arrivals.counted(task):
            return "this task was accepted before"
        if self._arrivals.too_old(task):
            return self._arrivals.why_too_old(task)
        return "the task is not known any more"

    @property
    def _newest(self) -> int:
        return self._arrivals.newest

    @property
    def _busy(self) -> Set[str]:
        return self._work.keys() | self._survey.busy

    # ---- a version's course

    def adopt(self, plan: Plan) -> None:
        assert plan.buffering is not None
        self._plan, self._arrivals.buffering = plan, plan.buffering

    def begin(self, version: int, reports: Mapping[str, Report], now: float) -> None:
        self._began_at = now
        self._begun = self._open = True
        self._listen_anew(now)
        self._given.clear()
        self._say(m.BeginRound(version + 1))
        for learner in by_number(name for name, brought in self._learners.ready.items() if brought.tasks):
            self._take_in(learner)
        self._drop_old()
        if self._plan.evaluates(version):
            self._survey.open(Evaluation(version, dict(reports)), now + self._plan.round_deadline)
        self._take_waiting()

    def next_step(self, now: float, *, last: bool) -> Step | None:
        if self._arrivals.full:
            return Close()
        if last:
            return None
        if now >= self._deadline_at:
            if self._attempt >= self._plan.max_attempts:
                return GiveUp("NoUpdates", self._silence)
            attempt = self._attempt + 1
            self._listen_anew(now)
            self._attempt = attempt
        for learner in by_number(self._learners.ready.keys() - self._busy - self._failed):
            self._give_work(learner)
        return None

    def commit(self) -> None:
        self._open = False
        contributors = tuple(by_number({task.learner for task in self._arrivals.buffer}))
        self._say(
            m.CommitRound(
                number=self._newest + 1,
                attempts=self._attempt,
                started_at=self._began_at,
                participants=contributors,
                contributors=contributors,
                lost=(),
                tasks=tuple(self._arrivals.buffer),
            )
        )

    def committed(self, version: int) -> None:
        self._begun = False
        self._arrivals.committed(version)

    def abandon(self, reason: str) -> None:
        for task in self._tasks:
            self._learners.discard(task, reason)
        self._work.clear()
        self._arrivals.abandon()
        self._survey.abandon(reason)
        self._begun = self._open = False

    def _listen_anew(self, now: float) -> None:
        self._heard_at, self._attempt = now, 1
        self._failed.clear()

    @property
    def _deadline_at(self) -> float:
        return self._heard_at + self._plan.round_deadline

    @property
    def _silence(self) -> str:
        missing = ", ".join(by_number(self._busy | self._failed)) or "nobody"
        arrived, size = len(self._arrivals.buffer), self._arrivals.buffering.size
        return (
            f"version {self._newest + 1}: {arrived} of {size} updates arrived, and none in "
            f"{self._attempt} times {self._plan.round_deadline:g} s; asked: {missing}"
        )

    # ---- what learners do

    def appeared(self, learner: str, now: float) -> bool:
        """What it is still at goes on; what it holds is sent for if it may count."""
        self._work.pop(learner, None)
        self._failed.discard(learner)
        self._survey.returned(learner, self._learners.ready[learner].running)
        self._take_in(learner)
        return self._open or learner in self._busy

    def lost(self, learner: str) -> None:
        """What it was at may still arrive."""

    def heed_places(self, has_place: Callable[[str], bool]) -> None:
        """Nobody is waited for."""

    def delivered(self, task: TaskId, work: Work, now: float) -> None:
        self._done(task)
        if task.base_version == self._survey.version:
            self._survey.excuse(task.learner)  # it has begun with that
        self._arrivals.add(task, work)
        self._heard_at, self._attempt = now, 1
        if self._open:
            self._take_waiting()

    def rejected(self, task: TaskId) -> None:
        self.failed(task)

    def failed(self, task: TaskId) -> None:
        if self.expects(task) or self._survey.asks(task):
            self._done(task)
            self._survey.excuse(task.learner)
            self._failed.add(task.learner)

    def _take_waiting(self) -> None:
        for task, work, scale in self._arrivals.fill():
            self._say(m.Fold(task, self._plan.weigh(work), work.batches, scale))

    def _take_in(self, learner: str) -> None:
        brought = self._learners.unpack(learner)
        for text in brought.tasks:
            task = _parsed(text)
            if task is not None and (self._arrivals.counted(task) or self._survey.asks(task)):
                continue  # a result goes when its version is known to be committed; an evaluation goes on
            if task is None or not self._may_count(task, learner):
                reason = "its task is of no use any more" if task is None else self.why_late(task)
                self._say(m.Discard(learner, text, reason))
                continue
            self._work.setdefault(learner, set()).add(task)
            if text != brought.running:
                self._learners.resend(self._order(task))

    def _may_count(self, task: TaskId, learner: str) -> bool:
        ours = task.learner == learner and self._learners.trains_from(task, task.base_version)
        return ours and task.base_version <= self._newest and not self._arrivals.too_old(task)

    def _drop_old(self) -> None:
        """Work from versions that are too old is ended at once, as its result would not count; nor does one count that
        has become too old while it waited."""
        for task in filter(self._arrivals.too_old, self._tasks):
            self._learners.discard(task, self.why_late(task))
            self._done(task)
        for task in self._arrivals.drop_old():
            self._say(m.Drop(task, self._arrivals.why_too_old(task)))

    @property
    def _tasks(self) -> list[TaskId]:
        """All work under way, in the learners' order."""
        return [task for learner in by_number(self._work) for task in self._work[learner]]

    def _done(self, task: TaskId) -> None:
        tasks = self._work.get(task.learner, set())
        tasks.discard(task)
        if not tasks:
            self._work.pop(task.learner, None)

    def _give_work(self, learner: str) -> None:
        if self._survey.lacks(learner) and self._survey.version != self._newest:
            self._survey.ask(learner, self._newest + 1)
            return
        self._given[learner] += 1
        task = self._learners.task(Kind.TRAIN, self._newest, learner, self._given[learner])
        self._work[learner] = {task}
        self._learners.selector.took_part(learner, self._newest + 1)
        self._learners.dispatch(self._order(task))

    def _order(self, task: TaskId) -> Order:
        evaluate = self._survey.lacks(task.learner) and self._survey.version == task.base_version
        # Trained twice from one version in the same order, its data would make the same update twice.
        seed = task.base_version * _SEEDS_A_VERSION + task.attempt
        return Order(task, task.base_version + 1, evaluate=evaluate, seed=seed)

    # ---- metrics

    def reported(self, learner: str, version: int, report: Report) -> None:
        self._survey.reported(learner, version, report)

    def judged(self, now: float, *, closing: bool) -> Judged | None:
        """A survey takes as long as it takes; versions do not wait for it."""
        evaluation = self._survey.close(now)
        if evaluation is None:
            return None
        return Judged(evaluation, enough=len(evaluation.reports) >= self._plan.min_learners)


def _parsed(text: str) -> TaskId | None:
    try:
        return TaskId.parse(text)
    except ValueError:
        return None

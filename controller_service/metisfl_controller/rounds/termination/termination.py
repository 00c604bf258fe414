"""All criteria of one federation, and the metrics that they have seen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from metisfl.spec.termination import MetricSource
from metisfl_controller.rounds.plan import Plan
from metisfl_controller.rounds.termination.conclusion import Conclusion, metric_name
from metisfl_controller.rounds.termination.max_duration import MaxDuration
from metisfl_controller.rounds.termination.max_rounds import MaxRounds
from metisfl_controller.rounds.termination.plateau import PlateauWatch
from metisfl_controller.rounds.termination.target import TargetMetric
from metisfl_controller.rounds.termination.too_few_learners import TooFewLearners


@dataclass(frozen=True)
class Observed:
    """Metrics of one version that are as complete as they will be."""

    source: MetricSource
    version: int
    values: Mapping[str, float]


class Termination:
    """`observed`: what earlier controllers have seen, oldest first. The version that a controller finds is evaluated
    again and so is not among it."""

    def __init__(self, plan: Plan, observed: Iterable[Observed] = ()) -> None:
        self._seen: list[Observed] = []
        self._newest: dict[MetricSource, int] = {}
        self._names: dict[MetricSource, set[str]] = {}
        self.adopt(plan)
        for each in observed:
            self.observe(each)

    def adopt(self, plan: Plan) -> None:
        """A changed plan holds from now on, and for all that has been seen."""
        self._rounds, self._duration = MaxRounds(plan.max_rounds), MaxDuration(plan.max_duration)
        self._too_few = TooFewLearners(plan.min_learners, plan.too_few_learners)
        self._watches: list[TargetMetric | PlateauWatch] = []
        if plan.target is not None:
            self._watches.append(TargetMetric(plan.target))
        if plan.plateau is not None:
            self._watches.append(PlateauWatch(plan.plateau))
        for each in self._seen:
            self._watch(each)

    def by_rounds(self, version: int) -> Conclusion | None:
        """Whether the newest version is the last."""
        return self._rounds.judge(version)

    def by_time(self, started_at: float | None, now: float) -> Conclusion | None:
        """Whether time is up."""
        return self._duration.judge(started_at, now)

    def by_attendance(self, ready: Collection[str], now: float) -> Conclusion | None:
        """Whether learners have been too few for too long; to be asked at every step."""
        return self._too_few.judge(ready, now)

    def observe(self, observed: Observed) -> Conclusion | None:
        """Whether the metrics end it. Each version of a source counts once, and none after a newer one."""
        if observed.version <= self._newest.get(observed.source, -1):
            return None
        self._newest[observed.source] = observed.version
        self._seen.append(observed)
        self._names.setdefault(observed.source, set()).update(observed.values)
        return self._watch(observed)

    @property
    def remark(self) -> str:
        """A word about a metric that the end depends on and that is in no report so far; empty when all is well."""
        for watch in self._watches:
            reported = self._names.get(watch.source)
            if reported is not None and watch.metric not in reported:
                names = ", ".join(metric_name(name, watch.source) for name in sorted(reported)) or "none"
                return (
                    f"the end depends on {metric_name(watch.metric, watch.source)}, which nobody has reported; "
                    f"reported metrics: {names}"
                )
        return ""

    def _watch(self, observed: Observed) -> Conclusion | None:
        conclusions = [
            watch.observe(observed.version, observed.values[watch.metric])
            for watch in self._watches
            if watch.source is observed.source and watch.metric in observed.values
        ]
        return next(filter(None, conclusions), None)

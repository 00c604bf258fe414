"""Says what is known of each version's metrics, and whether that ends the federation."""

from __future__ import annotations

from collections.abc import Callable

from metisfl.spec.termination import MetricSource
from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.evaluation import Evaluation
from metisfl_controller.rounds.termination.conclusion import Conclusion
from metisfl_controller.rounds.termination.termination import Observed, Termination


class Judge:
    """Of the learners' metrics; what evaluators find is said by themselves."""

    def __init__(self, termination: Termination, say: Callable[[m.Command], None]) -> None:
        self._termination = termination
        self._say = say
        self._known: int | None = None
        self._remarked = ""

    def knows(self, version: int | None) -> bool:
        """Whether this controller has heard learners' metrics of the version, the newest."""
        return version is not None and self._known == version

    def record(self, evaluation: Evaluation, conclusive: bool) -> Conclusion | None:
        """Metrics that are as complete as they will be. Those that are not conclusive are shown, and end nothing."""
        evaluation.settled = True
        if evaluation.reports:
            self._known = max(evaluation.version, self._known or 0)
        means = evaluation.means()
        if not means:
            return None
        self._say(m.RecordMetrics(evaluation.version, means, MetricSource.LEARNERS, conclusive))
        values = {name: mean.value for name, mean in means.items()}
        seen = Observed(MetricSource.LEARNERS, evaluation.version, values)
        conclusion = self._termination.observe(seen) if conclusive else None
        if (remark := self._termination.remark) and remark != self._remarked:
            self._remarked = remark
            self._say(m.Remark(remark))
        return conclusion

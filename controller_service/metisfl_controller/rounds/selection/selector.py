"""Applies a policy to what is known of the learners, and keeps that knowledge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from metisfl_controller.rounds import messages as m
from metisfl_controller.rounds.names import by_number
from metisfl_controller.rounds.selection.policy import Candidate, Selection


@dataclass(frozen=True)
class History:
    """What one learner did so far; of the metrics, the last value of each."""

    last_round: int = 0
    rounds: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


class Selector:
    """One federation's selection. `policy` may be replaced between rounds."""

    def __init__(self, policy: Selection, history: Mapping[str, History] | None = None) -> None:
        self.policy = policy
        self._examples: dict[str, int] = {}
        self._remarked: str | None = None
        self._known = dict(history or {})

    def choose(self, ready: Iterable[str], round: int, extra: int = 0) -> list[str]:
        """Who of those `ready` is asked to take part in this round, in natural order; `extra` more than are needed."""
        candidates = [self._candidate(learner) for learner in by_number(ready)]
        return by_number(self.policy.select(candidates, round, extra))

    def remark(self, ready: Iterable[str]) -> str:
        """What people should know of the policy, once; empty otherwise."""
        metric, known = self.policy.metric, [self._known[learner] for learner in ready if learner in self._known]
        reported = sorted({name for each in known for name in each.metrics})
        if metric is None or metric in reported or not reported or metric == self._remarked:
            return ""
        self._remarked = metric
        return (
            f"selection goes by metric '{metric}', which no learner has reported; reported are {', '.join(reported)}. "
            "Until one does, only the size of their data counts"
        )

    # ---- what becomes known

    def hear(self, event: m.Event) -> None:
        """Learners say how much data they have, and what they measured."""
        match event:
            case m.LearnerReady(learner):
                self._examples[learner] = event.examples
            case m.UpdateVerified(task, work):
                self._reported(task.learner, work.metrics)
            case m.Evaluated(learner, _, report):
                self._reported(learner, report.metrics)
            case _:
                pass

    def took_part(self, learner: str, round: int) -> None:
        """Once for each round, however often it is told."""
        known = self._known.get(learner, History())
        if known.last_round != round:
            self._known[learner] = replace(known, last_round=round, rounds=known.rounds + 1)

    def _reported(self, learner: str, metrics: Mapping[str, float]) -> None:
        known = self._known.get(learner, History())
        self._known[learner] = replace(known, metrics={**known.metrics, **metrics})

    def _candidate(self, learner: str) -> Candidate:
        known = self._known.get(learner, History())
        return Candidate(learner, self._examples.get(learner, 0), known.last_round, known.rounds, known.metrics)

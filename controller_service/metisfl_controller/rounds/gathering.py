"""Who is waited for before work begins, so that it does not depend on which pod happened to start first."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl_controller.rounds.learners import Learners
from metisfl_controller.rounds.plan import Plan


@dataclass
class Gathering:
    """Enough learners must be ready, and then the rest have some time to appear."""

    learners: Learners
    plan: Plan
    _enough_since: float | None = None

    @property
    def enough(self) -> bool:
        return len(self.learners.ready) >= self.plan.min_learners

    def done(self, now: float) -> bool:
        """Ask at every step: the rest's time begins anew when learners were too few in between."""
        if not self.enough:
            self._enough_since = None
            return False
        if self._enough_since is None:
            self._enough_since = now
        everybody = len(self.learners.ready) >= self.plan.expected_learners
        return everybody or now - self._enough_since >= self.plan.gather_grace

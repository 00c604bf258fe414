"""Too few learners for too long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from metisfl_controller.rounds.names import by_number
from metisfl_controller.rounds.termination.conclusion import Conclusion


@dataclass
class TooFewLearners:
    """Time counts from when learners became too few, and anew when a controller starts: they have to come back."""

    minimum: int
    seconds: float | None
    """None: they are waited for for ever."""
    _since: float | None = None

    def judge(self, ready: Collection[str], now: float) -> Conclusion | None:
        """Ask at every step. `ready`: the learners that are there and can work."""
        if self.seconds is None or len(ready) >= self.minimum:
            self._since = None
            return None
        if self._since is None:
            self._since = now
        if now - self._since < self.seconds:
            return None
        there = f": {', '.join(by_number(ready))}" if ready else ""
        return Conclusion(
            "TooFewLearners",
            f"for {self.seconds:g} seconds fewer than {self.minimum} learners were ready; now {len(ready)}{there}",
            complete=False,
        )

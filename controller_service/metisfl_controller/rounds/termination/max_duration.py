"""So much time since the first round began."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl_controller.rounds.termination.conclusion import Conclusion


@dataclass(frozen=True)
class MaxDuration:
    seconds: float | None
    """None: for ever."""

    def judge(self, started_at: float | None, now: float) -> Conclusion | None:
        """`started_at`: when the first round of all began, also by an earlier controller; None before that."""
        if self.seconds is None or started_at is None or now - started_at < self.seconds:
            return None
        return Conclusion("MaxDurationReached", f"{self.seconds:g} seconds have passed")

"""So many committed rounds."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl_controller.rounds.termination.conclusion import Conclusion


@dataclass(frozen=True)
class MaxRounds:
    rounds: int

    def judge(self, version: int) -> Conclusion | None:
        """`version` is the newest one; round r made version r."""
        if version < self.rounds:
            return None
        return Conclusion("MaxRoundsReached", f"all {self.rounds} rounds are done")

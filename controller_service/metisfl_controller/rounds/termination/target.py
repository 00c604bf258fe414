"""A bound on one metric."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A bound on one metric. Exactly one of the two is set."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def met_by(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    def __str__(self) -> str:
        return f"{self.metric} ≥ {self.at_least}" if self.at_least is not None else f"{self.metric} ≤ {self.at_most}"

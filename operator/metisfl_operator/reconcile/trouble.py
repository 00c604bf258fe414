"""Something that is wrong, and with what."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl_operator.reconcile.reasons import Reason


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod, a workload or a volume from working: its name, and what is wrong with it."""

    reason: Reason
    subject: str
    words: str

    @property
    def message(self) -> str:
        return f"{self.subject}: {self.words}"

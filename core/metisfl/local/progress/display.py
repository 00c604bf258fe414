"""What every way of showing progress can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from metisfl.api import FederationDocument, RoundDocument
from metisfl.spec import Federation


@dataclass(frozen=True)
class Snapshot:
    """What is known at one moment."""

    document: FederationDocument
    rounds: Sequence[RoundDocument]
    restarts: dict[str, int]
    now: datetime


class Display(Protocol):
    """Shows a run while it goes on."""

    def open(self, federation: Federation, output: str) -> None:
        """The run begins."""

    def update(self, snapshot: Snapshot) -> None:
        """Something may have changed."""

    def note(self, text: str) -> None:
        """One line that must not be missed, such as a restart."""

    def close(self) -> None:
        """The run is over; safe to call twice."""

"""Follow a federation until it has ended, on any display of `metisfl.local.progress`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from metisfl.api import FederationDocument, RoundDocument
from metisfl.api.rounds import RoundLog
from metisfl.cluster.access import ClusterError, Json
from metisfl.cluster.words import holds, telling
from metisfl.local.progress.display import Display, Snapshot
from metisfl.spec import parse_federation

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""How long the API server may give no answer while a federation is followed."""


class Source(Protocol):
    """Where a federation is looked at. All raise ClusterError."""

    def federation(self) -> Json: ...

    def progress(self) -> FederationDocument: ...

    def rounds(self, after: int, limit: int) -> Sequence[RoundDocument]: ...


@dataclass
class Watch:
    """`sleep` and `monotonic` are those of `time`, but for tests."""

    source: Source
    display: Display
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    _told: str = ""
    _log: RoundLog = field(default_factory=RoundLog)

    def run(self) -> Json:
        """Returns the Federation object once it is Complete or Failed. Raises ClusterError, SpecError."""
        found = self.source.federation()
        self.display.open(parse_federation(found), "")
        heard = self.monotonic()
        while True:
            self._show(found)
            if holds(found, "Complete") or holds(found, "Failed"):
                return found
            self.sleep(POLL_SECONDS)
            try:
                found, heard = self.source.federation(), self.monotonic()
            except ClusterError as error:
                if self.monotonic() - heard > PATIENCE_SECONDS:
                    raise
                self._note(str(error))

    def _show(self, found: Json) -> None:
        if holds(found, "ControllerAvailable"):
            try:
                document = self.source.progress()
                rounds = self._log.follow(document, self.source.rounds)
            except ClusterError as error:
                self._note(str(error))
                return
            self.display.update(Snapshot(document, rounds, {}, datetime.now(UTC)))
            self._told = ""
        else:
            self._note(telling(found))

    def _note(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.display.note(text)

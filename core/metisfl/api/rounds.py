"""Follow the committed rounds in pages, so that a look costs what is new and not what has been."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from metisfl.api.documents import FederationDocument, RoundDocument

PAGE = 200
"""Rounds that are asked for at a time."""

RECENT = 20
"""So many of the newest known rounds are read again: a version's metrics come after its round, those of evaluators even
later."""

ReadRounds = Callable[[int, int], Sequence[RoundDocument]]
"""`GET /v1/rounds` with `after` and `limit`: rounds with higher numbers than the first, at most the second."""


def read_rounds(read: ReadRounds, after: int = 0) -> list[RoundDocument]:
    """All rounds with higher numbers than `after`, oldest first."""
    found: list[RoundDocument] = []
    while True:
        # A controller that knows no pages answers with all rounds, whatever it is asked for.
        page = [entry for entry in read(after, PAGE) if entry.number > after]
        found += page
        if len(page) != PAGE:
            return found
        after = page[-1].number


class RoundLog:
    """The committed rounds of one federation, as far as they are known."""

    def __init__(self) -> None:
        self._rounds: list[RoundDocument] = []
        self._as_of: Any = None

    def follow(self, document: FederationDocument, read: ReadRounds) -> Sequence[RoundDocument]:
        """All rounds, oldest first, after reading what is new in `document`. Raises what `read` does; what was known
        is then still known."""
        as_of = (document.committed_rounds, document.metrics, document.evaluator_metrics)
        if as_of != self._as_of:
            kept = self._rounds[: max(0, min(len(self._rounds), document.committed_rounds) - RECENT)]
            self._rounds = kept + read_rounds(read, kept[-1].number if kept else 0)
            self._as_of = as_of
        return self._rounds

    @property
    def known(self) -> Sequence[RoundDocument]:
        return self._rounds

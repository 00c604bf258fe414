"""How long a federation may still take: pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from metisfl.api import FederationDocument, RoundDocument

_RECENT_ROUNDS = 10


def time_left(
    document: FederationDocument, rounds: Sequence[RoundDocument], max_seconds: int | None, now: datetime
) -> timedelta | None:
    """At most this long: the rounds still allowed at the pace of the recent ones, or what is left of the time allowed.

    None while nothing is known. A target metric may end the federation earlier.
    """
    bounds = []
    recent = rounds[-_RECENT_ROUNDS:]
    if recent:
        pace = (recent[-1].ended_at - recent[0].started_at) / len(recent)
        running = now - recent[-1].ended_at if document.round else timedelta()
        remaining = document.max_rounds - document.committed_rounds
        bounds.append(max(pace * remaining - min(running, pace), timedelta()))
    if max_seconds is not None and document.start_time is not None:
        bounds.append(max(document.start_time + timedelta(seconds=max_seconds) - now, timedelta()))
    return min(bounds, default=None)

"""The learner's proof of having joined, shared by all that make calls."""

from __future__ import annotations

import asyncio

from metisfl.proto.v1 import controller_pb2 as pb


class Lease:
    """Holds the answer to the last Join; whoever needs it while there is none waits for the session to join again."""

    def __init__(self) -> None:
        self._joined = asyncio.Event()
        self._terms: pb.JoinResponse | None = None

    @property
    def id(self) -> str | None:
        """None before the first Join and after the lease was lost."""
        return None if self._terms is None else self._terms.lease.id

    async def terms(self) -> pb.JoinResponse:
        while self._terms is None:
            await self._joined.wait()
        return self._terms

    def renew(self, terms: pb.JoinResponse) -> None:
        self._terms = terms
        self._joined.set()

    def lost(self) -> None:
        self._terms = None
        self._joined.clear()

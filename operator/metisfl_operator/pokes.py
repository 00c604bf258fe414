"""Which federation to look at next: any number of reasons to look make one look, and never two at a time for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name of a Federation."""


@dataclass
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: asyncio.Task[None] | None = None
    users: int = 0


class Pokes:
    """Runs `look(key)` for every key that was poked, once for pokes that come close together.

    `look` may raise: whoever called `run` gets the exception; after a poke it is logged, and the next poke tries again.
    """

    def __init__(
        self, look: Callable[[Key], Awaitable[None]], *, settle_seconds: float = 0.3, at_once: int = 4
    ) -> None:
        self._look = look
        self._settle_seconds = settle_seconds
        self._at_once = asyncio.Semaphore(at_once)
        self._entries: dict[Key, _Entry] = {}

    async def run(self, key: Key) -> None:
        """Look now, or as soon as the look under way has ended."""
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        try:
            async with entry.lock, self._at_once:
                await self._look(key)
        finally:
            entry.users -= 1
            if not entry.users and entry.waiting is None:
                self._entries.pop(key, None)

    def poke(self, key: Key) -> None:
        """Look soon. Pokes until then are the same poke; one during a look makes another look after it."""
        entry = self._entries.setdefault(key, _Entry())
        if entry.waiting is None:
            entry.waiting = asyncio.create_task(self._soon(key, entry), name=f"look at {'/'.join(key)}")

    async def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        tasks = [entry.waiting for entry in self._entries.values() if entry.waiting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _soon(self, key: Key, entry: _Entry) -> None:
        try:
            await asyncio.sleep(self._settle_seconds)
        finally:
            # From here on what changes may not be seen by the look that begins: it deserves one of its own.
            entry.waiting = None
        try:
            await self.run(key)
        except Exception as error:  # noqa: BLE001 - one federation's trouble must not end the looks at others
            log.warning("%s: will be tried again: %s", "/".join(key), error)

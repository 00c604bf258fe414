"""Which uploads may come in, and where they land. Pure: time is passed in, nothing is read, written or awaited.

There is room for a fixed number of uploads in *slots*. Who asks while none is free waits, first come first served: its
stream is not read, and nothing fails. A slot is freed when its upload has been folded. Slots bound memory and not
concurrency, so while somebody waits, an upload that would keep its slot for long is moved *aside*, to a file:

- one whose stream broke, or that is complete and must wait for others' turn: at once;
- one that is slow, or sends nothing at all: after it has been watched for a while.

When every slot is found in the hands of slow uploads, more of the same would only move the queue at their pace: then
all who wait are let in aside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeAlias, TypeVar

Key = TypeVar("Key", bound=Hashable)

WATCH_SECONDS = 1.0
"""How long an upload's pace is measured before it is judged; also how often, while somebody waits."""

SLOW_SECONDS = 30.0
"""An upload is slow when the whole model would take longer than this at its pace, …"""

SLOW_BYTES_PER_SECOND = 4 << 20
"""… and is never called slow while it is faster than this: some models are large."""

FULL_DISK_SECONDS = 5.0
"""How long after a file could not be made the next attempt is made."""


class Use(Enum):
    """What becomes of an upload that has a slot."""

    FILLING = auto()
    """Its stream delivers, or should."""

    BROKEN = auto()
    """Nobody fills it now; it may be resumed."""

    PARKED = auto()
    """Complete, and waiting until it is its turn to be folded."""

    WORKED_ON = auto()
    """Its bytes are being read: it cannot be moved, and will be done soon."""


@dataclass(frozen=True)
class Admit(Generic[Key]):
    """Let this one in, into a slot or aside."""

    key: Key
    aside: bool


@dataclass(frozen=True)
class MoveAside(Generic[Key]):
    """Copy this one to a file, then say `moved`: until then it keeps its slot."""

    key: Key


Decision: TypeAlias = Admit[Key] | MoveAside[Key]


@dataclass
class _Held:
    use: Use
    watched_since: float
    received_then: int
    gone: bool = False
    """Left while it was being moved; its slot is freed when that has ended."""


class Admission(Generic[Key]):
    """The state of the queue and the slots. After each call that may free or fill something, ask `decide`.

    Small models have thousands of slots, so that nothing looks at all of them more often than a few times a second.
    """

    def __init__(self, slots: int, nbytes: int, received: Callable[[Key], int]) -> None:
        """`received` tells how many of an upload's `nbytes` bytes have arrived."""
        self._slots = slots
        self._slow_pace = min(nbytes / SLOW_SECONDS, SLOW_BYTES_PER_SECOND)
        self._received = received
        self._waiting: dict[Key, float] = {}
        """Since when, in the order of arrival."""
        self._held: dict[Key, _Held] = {}
        self._slow: set[Key] = set()
        self._movable: dict[Key, None] = {}
        """Those with slots that would keep them for long, in the order in which that became known."""
        self._moving: set[Key] = set()
        """These keep their slots until they are copied."""
        self._aside: set[Key] = set()
        self._crowded_since = -math.inf
        self._judged_at = -math.inf
        self._no_files_until = self._closed_until = -math.inf

    # ---- what happens

    def request(self, key: Key, now: float) -> None:
        """One more that wants to come in."""
        if not self._waiting:
            # How uploads fared while nobody waited says little about now.
            self._crowded_since = now
        self._waiting[key] = now

    def leave(self, key: Key) -> None:
        """It has been folded, refused, or does not want to come in any more; harmless when repeated."""
        self._waiting.pop(key, None)
        self._aside.discard(key)
        if key in self._moving:
            self._held[key].gone = True
        elif key in self._held:
            self._free(key)

    def turn(self, key: Key, use: Use, now: float) -> None:
        """What is done with an upload changes. One that is moving or aside does not matter here."""
        held = self._held.get(key)
        if held is None:
            return
        held.use = use
        self._watch(key, held, now)
        if use in (Use.BROKEN, Use.PARKED) and key not in self._moving:
            self._movable[key] = None

    def moved(self, key: Key) -> None:
        """It lies in a file now, and its slot is free."""
        if not self._free(key).gone:
            self._aside.add(key)

    def not_moved(self, key: Key, now: float) -> None:
        """The disk had no room for the file it should have been moved to."""
        self._no_files_until = now + FULL_DISK_SECONDS
        self._moving.remove(key)
        if self._held[key].gone:
            self._free(key)
        else:
            self._movable[key] = None

    def not_admitted(self, key: Key, now: float) -> None:
        """There was no room for it after all; it is the next in the queue again."""
        if key in self._held:
            self._free(key)
            self._closed_until = now + FULL_DISK_SECONDS
        self._aside.discard(key)
        self._no_files_until = now + FULL_DISK_SECONDS
        self._waiting = {key: now, **self._waiting}

    # ---- what to do

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def in_slots(self) -> int:
        """Slots in use, also by uploads that are being moved."""
        return len(self._held)

    @property
    def aside(self) -> int:
        return len(self._aside)

    def decide(self, now: float) -> list[Decision[Key]]:
        """What to do now; to be asked again within `WATCH_SECONDS` as long as somebody waits."""
        decisions: list[Decision[Key]] = []
        while self._waiting and len(self._held) < self._slots and now >= self._closed_until:
            decisions.append(self._admit(next(iter(self._waiting)), False, now))
        if self._waiting and now >= self._no_files_until:
            self._judge(now)
            decisions += self._make_room()
            decisions += self._let_all_in(now)
        return decisions

    def _admit(self, key: Key, aside: bool, now: float) -> Admit[Key]:
        del self._waiting[key]
        if aside:
            self._aside.add(key)
        else:
            self._held[key] = _Held(Use.FILLING, now, self._received(key))
        return Admit(key, aside)

    def _free(self, key: Key) -> _Held:
        self._slow.discard(key)
        self._movable.pop(key, None)
        self._moving.discard(key)
        return self._held.pop(key)

    def _watch(self, key: Key, held: _Held, now: float) -> None:
        held.watched_since, held.received_then = now, self._received(key)
        self._slow.discard(key)
        self._movable.pop(key, None)

    def _judge(self, now: float) -> None:
        if now - self._judged_at < WATCH_SECONDS / 4:
            return
        self._judged_at = now
        for key, held in self._held.items():
            if held.use is not Use.FILLING or key in self._moving:
                continue
            seconds = now - held.watched_since
            if held.watched_since < self._crowded_since:
                self._watch(key, held, now)
            elif seconds >= WATCH_SECONDS:
                arrived = self._received(key) - held.received_then
                self._watch(key, held, now)
                if arrived < self._slow_pace * seconds:
                    self._slow.add(key)
                    self._movable[key] = None

    def _make_room(self) -> list[Decision[Key]]:
        """Move aside as many as there are waiting, if so many would keep their slots for long."""
        decisions: list[Decision[Key]] = []
        while self._movable and len(self._moving) < len(self._waiting):
            key = next(iter(self._movable))
            del self._movable[key]
            self._moving.add(key)
            decisions.append(MoveAside(key))
        return decisions

    def _let_all_in(self, now: float) -> list[Decision[Key]]:
        """All but those for whom a slot is about to be free, when nothing but slow uploads is in the slots."""
        if len(self._slow) < len(self._held):
            return []
        patient = [key for key, since in self._waiting.items() if now - since >= WATCH_SECONDS]
        return [self._admit(key, True, now) for key in patient[len(self._held) :]]

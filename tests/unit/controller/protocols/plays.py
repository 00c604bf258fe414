"""Scenes of federations as tables: what happens, and what the state machine says to it, on fake time.

    a-0 a-1 deliver              | fold a-0 x10, fold a-1 x10, commit 1 of a-0 a-1
    1 is committed               | begin 2, a-0 trains 1, a-1 trains 1
    b-0 is lost                  |
    100 seconds pass             | commit 2 of a-0, lost a-1

What is said is written as in the lines of `Script`; after a comma it may go on in another line. A scene begins with
a-0, a-1 and b-0 in the first round. Learners evaluate version 0, so that there the lines say "trains and evaluates".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from metisfl_controller.rounds.phases import Resumed
from metisfl_controller.rounds.tasks import TaskId

LEARNERS = ("a-0", "a-1", "b-0")
SCENES = {"normal", "late", "dead", "leaving", "joining", "all dead", "controller restart"}
"""What every protocol is shown in."""


class Play:
    """One federation; `plan` are the fields of its Plan."""

    def __init__(self, script: Callable[..., Any], **plan: Any) -> None:
        self._script = script
        self._plan = {"max_rounds": 10, "evaluate_every": 1000, "min_learners": 1, "gather_grace": 15.0} | plan
        self._counted: set[TaskId] = set()
        self._version = 0
        self.f = script(learners=3, **self._plan)
        self._begun = self.f.started(*LEARNERS)

    def act(self, scene: str) -> None:
        """Play a scene and compare."""
        unwrapped = re.sub(r",\s*\n\s*\|\s*", ", ", scene)
        for line in filter(None, map(str.strip, unwrapped.splitlines())):
            event, _, expected = line.partition("|")
            said = self._begun if event.strip() == "at first" else self._happens(event.split())
            assert ", ".join(said) == expected.strip(), f"after: {event.strip()} | {', '.join(said)}"

    def _happens(self, words: list[str]) -> list[str]:
        names = [word for word in words if re.fullmatch(r"[a-z]-\d+", word)]
        match [word for word in words if word not in names]:
            case ["deliver" | "delivers", *rest]:
                return self._deliver(names, rest)
            case ["is" | "are", "lost" | "gone"]:
                return list(self.f.lost(*names))
            case ["appears" | "appear"]:
                return list(self.f.ready(*names))
            case ["returns", "at", "work"]:
                return list(self.f.ready(names[0], running=str(self.f.tasks[names[0]])))
            case ["returns", "holding", "its", "result"]:
                return list(self.f.ready(names[0], held=(str(self.f.tasks[names[0]]),)))
            case ["fails"]:
                return list(self.f.fails(names[0]))
            case ["is", "refused"]:
                return list(self.f.is_rejected(names[0]))
            case ["finds", version, "is", value]:
                return list(self.f.evaluates(int(version), **{names[0].replace("-", "_"): float(value)}))
            case [version, "is", "committed"]:
                self._version = int(version)
                self._counted |= set(self.f.commits[-1].tasks)
                return list(self.f.committed(self._version))
            case [seconds, "seconds", "pass"]:
                return list(self.f.after(float(seconds)))
            case ["the", "controller", "restarts"]:
                self._restart()
                return []
        raise AssertionError(f"not an event: {' '.join(words)}")

    def _deliver(self, names: list[str], rest: list[str]) -> list[str]:
        """`rest`: "10 batches in 2 seconds" each, or nothing."""
        work = {"batches": int(rest[0]), "seconds": float(rest[3])} if rest else {}
        return list(self.f.uploads(*names, **work))

    def _restart(self) -> None:
        """What was committed is known, and learners have to find their way back."""
        now, tasks = self.f.now, self.f.tasks
        resumed = Resumed(self._version, started_at=1000.0, counted=frozenset(self._counted))
        self.f = self._script(learners=3, resumed=resumed, incarnation=2, **self._plan)
        self.f.now, self.f.tasks = now, tasks

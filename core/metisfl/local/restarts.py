"""What to do when a process of the run ends: pure decisions, the same the kubelet and the controller's users expect."""

from __future__ import annotations

import signal
from dataclasses import dataclass

MAX_RESTARTS = 5
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 30.0

_LEARNER_EXITS = {
    1: "an unexpected error",
    2: "its settings are wrong",
    3: "its entrypoint cannot be loaded",
    4: "its code raised an error",
    5: "the controller refused it",
    6: "it could not reach the controller",
}
_CONTROLLER_EXITS = {
    0: "it was told to stop",
    1: "an unexpected error",
    2: "its settings or the federation are wrong",
    3: "its state directory cannot be used, or another controller holds it",
}
_LEARNER_UNREACHABLE = 6


@dataclass(frozen=True)
class Restart:
    """Start it again after a pause."""

    delay_seconds: float
    why: str


@dataclass(frozen=True)
class Fatal:
    """Starting it again would not help; the run ends."""

    why: str


@dataclass(frozen=True)
class Spare:
    """Starting it again would not help; the run goes on without it."""

    why: str


Verdict = Restart | Fatal | Spare


def judge_learner(exit_code: int, restarts: int) -> Restart | Fatal:
    """A learner ended before the federation did: by a signal, after SIGTERM, or by itself with a code that says why."""
    if exit_code > 0 and exit_code != _LEARNER_UNREACHABLE:
        return Fatal(_why(exit_code, _LEARNER_EXITS))
    return _again(_why(exit_code, _LEARNER_EXITS) if exit_code else "it was told to stop", restarts)


def judge_evaluator(exit_code: int, restarts: int) -> Restart | Spare:
    """As a learner, but nobody waits for it."""
    verdict = judge_learner(exit_code, restarts)
    return Spare(verdict.why) if isinstance(verdict, Fatal) else verdict


def judge_controller(exit_code: int, restarts: int) -> Restart | Fatal:
    """The controller ended before the run did. It resumes from its last commit after a signal killed it."""
    why = _why(exit_code, _CONTROLLER_EXITS)
    return _again(why, restarts) if exit_code < 0 else Fatal(why)


def _again(why: str, restarts: int) -> Restart | Fatal:
    if restarts >= MAX_RESTARTS:
        return Fatal(f"{why}, after {restarts} restarts")
    return Restart(min(_FIRST_DELAY_SECONDS * 2**restarts, _LONGEST_DELAY_SECONDS), why)


def _why(exit_code: int, meanings: dict[int, str]) -> str:
    if exit_code >= 0:
        return f"{meanings.get(exit_code, 'an unexpected error')} (exit status {exit_code})"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"it was ended by {name}"

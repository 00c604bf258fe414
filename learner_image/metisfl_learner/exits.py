"""How a learner process ends: exit codes, and the error that carries one to `__main__`."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of `python -m metisfl_learner`."""

    FINISHED = 0
    """The controller said STOP, or the process was asked to end (SIGTERM, SIGINT)."""

    UNEXPECTED = 1
    """A defect of this program; the traceback is in the log."""

    SETTINGS = 2
    """An environment variable is missing or wrong."""

    ENTRYPOINT = 3
    """The entrypoint cannot be used: not importable, no such class, not a Learner, or it raised while being set up."""

    LEARNER_FAILED = 4
    """The learner's code raised, or returned something unusable, in a task."""

    REFUSED = 5
    """The controller does not accept this learner: unknown group or ordinal, another layout, another protocol."""

    UNREACHABLE = 6
    """The controller could not be reached for METISFL_CONNECT_DEADLINE_SECONDS."""


class FatalError(Exception):
    """Ends the process with `code`; the message is one paragraph for the person who has to act on it."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

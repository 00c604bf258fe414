"""Ctrl-C, SIGTERM and a closed terminal, as an exception for the code that runs."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user, or the system, wants the run to stop. Like KeyboardInterrupt, not to be caught by accident."""


class Interrupts:
    """Context manager: the first signal raises Interrupted, later ones only make it `impatient`."""

    def __init__(self) -> None:
        self.impatient = False
        self._raised = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # What whoever started this process wants ignored, as nohup does, stays ignored.
        heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._raised:
            self.impatient = True
            return
        self._raised = True
        raise Interrupted(signal.Signals(number).name)

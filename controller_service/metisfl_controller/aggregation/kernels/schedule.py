"""Work in blocks, shared among threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

ALONE = 1 << 17
"""Elements read or written below which waking another thread costs more than it brings."""

_GRAIN = 1 << 10


@dataclass(frozen=True)
class Blockwise:
    """A kernel in two compiled forms: `alone(ticket, step, stop, ...)` on the calling thread, and
    `together(workers, ticket, step, stop, ...)` on that many.

    Each worker takes the block of `step` elements that starts at the number at address `ticket`, and moves that number
    on, until it reaches `stop`. So on a machine that is busy with uploads no thread waits for another's share.
    """

    alone: Callable[..., Any]
    together: Callable[..., Any]

    def run(self, start: int, stop: int, block: int, work: int, *arguments: Any) -> Any:
        """Do elements `start` … `stop` in blocks of at most `block`, a multiple of 64; `work`: elements that are read
        and written in all."""
        ticket = np.array([start], np.int64)
        threads = 1 if work < ALONE else numba.get_num_threads()
        if threads == 1:
            return self.alone(ticket.ctypes.data, block, stop, *arguments)
        # At least four blocks for each thread, where that leaves them worth a turn.
        step = min(block, -(-(stop - start) // (4 * threads * _GRAIN)) * _GRAIN)
        workers = min(threads, -(-(stop - start) // step))
        return self.together(workers, ticket.ctypes.data, step, stop, *arguments)

    def compile(self, *arguments: Any) -> None:
        """Compile for arguments of these types, or load what was compiled before, by running over no element."""
        ticket = np.zeros(1, np.int64)
        self.alone(ticket.ctypes.data, 64, 0, *arguments)
        if (threads := numba.get_num_threads()) > 1:
            self.together(threads, ticket.ctypes.data, 64, 0, *arguments)

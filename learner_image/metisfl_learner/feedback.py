"""Error feedback of codec TopK: what an upload leaves out is added to the next one.

With e the residual and Δ the update, the learner sends TopK(Δ + e) and keeps the rest:  e ← (Δ + e) − TopK(Δ + e)
(Stich et al. 2018, arXiv 1809.07599, algorithm 1; Karimireddy et al. 2019, arXiv 1901.09847). The residual advances
only when the controller has accepted the upload. Losing it costs some rounds of accuracy and nothing else, so every
trouble with it is logged and passed over.
"""

from __future__ import annotations

import threading
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from metisfl.wire import narrowing
from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl.wire.narrowing import Floats
from metisfl.wire.segments import Form
from metisfl_learner.keeping import ArrayStore

Residual: TypeAlias = NDArray[np.float32]
"""One value for each element of the segments in form TOPK, segment after segment."""


class ErrorFeedback:
    """Encodes updates with the residual added, which is float32. Beside the store it holds 4 bytes an element while an
    upload is neither accepted nor given up."""

    def __init__(self, store: ArrayStore) -> None:
        self._store = store
        self._pending: tuple[str, Residual] | None = None
        self._lock = threading.Lock()

    def encode(self, task_id: str, encoding: Encoding, model: Buffer, base: Buffer) -> Buffer:
        """The section for the update model − base of a task. The residual of an earlier task that is neither accepted
        nor forgotten is given up."""
        self.forget()
        elements = sum(e.segment.elements for e in encoding.segments if e.form is Form.TOPK)
        with self._lock:
            total = self._store.load(elements)
        if total is None:
            total = np.zeros(elements, np.float32)
        content = aligned_zeros(encoding.nbytes)
        start = 0
        for encoded in encoding.segments:
            segment = encoded.segment
            if encoded.form is not Form.TOPK:
                encoded.raw(content)[...] = segment.of(model)
                continue
            part = total[start : start + segment.elements]
            start += segment.elements
            with np.errstate(over="ignore", invalid="ignore"):
                for tile, change in Floats(segment.of(model), segment.of(base)).tiles():
                    part[tile] += change
            indices = encoded.indices(content)
            narrowing.to_topk(Floats(part), indices, encoded.values(content))
            part[indices] = 0
        with self._lock:
            self._pending = (task_id, total)
        return content

    def accepted(self, task_id: str) -> None:
        """The controller has this task's upload: what it left out is due from now on. Blocks while it is saved."""
        with self._lock:
            if self._pending is None or self._pending[0] != task_id:
                return
            _, residual = self._pending
            self._pending = None
            # Within the lock: the next task may have come already, and must not add what was kept before once more.
            self._store.save(residual)

    def forget(self, task_id: str | None = None) -> None:
        """This task's upload, or whichever is pending, will not count: the residual stays what it was."""
        with self._lock:
            if self._pending is not None and task_id in (None, self._pending[0]):
                self._pending = None

"""Error feedback of codec TopK: what an upload leaves out is added to the next one.

With e the residual and Δ the update, the learner sends TopK(Δ + e) and keeps the rest:  e ← (Δ + e) − TopK(Δ + e)
(Stich et al. 2018, arXiv 1809.07599, algorithm 1; Karimireddy et al. 2019, arXiv 1901.09847). The residual advances
only when the controller has accepted the upload. Losing it costs some rounds of accuracy and nothing else, so every
trouble with it is logged and passed over.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metisfl.logs import ContextLogger
from metisfl.wire import narrowing
from metisfl.wire.codecs import Encoding, Form
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl.wire.narrowing import Floats

Residual: TypeAlias = NDArray[np.float32]
"""One value for each element of the segments in form TOPK, segment after segment."""


class ResidualStore(Protocol):
    """Where a residual is between uploads."""

    def load(self, elements: int) -> Residual | None:
        """A copy of what was saved last; None when there is none of this size."""
        ...

    def save(self, residual: Residual) -> None: ...


class ResidualInMemory:
    """For learners without a state directory: 4 bytes an element, gone with the process."""

    def __init__(self) -> None:
        self._residual: Residual | None = None

    def load(self, elements: int) -> Residual | None:
        del elements
        return None if self._residual is None else self._residual.copy()

    def save(self, residual: Residual) -> None:
        self._residual = residual


class ResidualFile:
    """A file in the state directory: takes no memory between uploads, and outlives the process."""

    def __init__(self, directory: Path, owner: str, log: ContextLogger) -> None:
        """`owner`: whatever the residual depends on; another owner has another file."""
        self._path = directory / f"residual-{hashlib.sha256(owner.encode()).hexdigest()[:32]}.npy"
        self._log = log

    def load(self, elements: int) -> Residual | None:
        try:
            found: NDArray[Any] = np.load(self._path, allow_pickle=False)
        except FileNotFoundError:
            self._log.info("no residual of earlier uploads was found: error feedback begins at zero")
            return None
        except (OSError, ValueError, EOFError) as error:
            self._log.warning("the residual in %s is lost, error feedback begins at zero: %s", self._path, error)
            return None
        if found.shape != (elements,) or found.dtype != np.float32 or not np.isfinite(found).all():
            self._log.warning("the residual in %s is not this model's: error feedback begins at zero", self._path)
            return None
        return found

    def save(self, residual: Residual) -> None:
        unfinished = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                np.save(file, residual, allow_pickle=False)
            unfinished.replace(self._path)
        except OSError as error:
            self._log.warning("the residual could not be kept, the next upload goes without: %s", error)


class ErrorFeedback:
    """Encodes updates with the residual added. Beside the store it holds 4 bytes an element while an upload is neither
    accepted nor given up."""

    def __init__(self, store: ResidualStore) -> None:
        self._store = store
        self._pending: tuple[str, Residual] | None = None
        self._lock = threading.Lock()

    def encode(self, task_id: str, encoding: Encoding, model: Buffer, base: Buffer) -> Buffer:
        """The section for the update model − base of a task. The residual of an earlier task that is neither accepted
        nor forgotten is given up."""
        self.forget()
        elements = sum(e.segment.elements for e in encoding.segments if e.form is Form.TOPK)
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
        self._store.save(residual)

    def forget(self, task_id: str | None = None) -> None:
        """This task's upload, or whichever is pending, will not count: the residual stays what it was."""
        with self._lock:
            if self._pending is not None and task_id in (None, self._pending[0]):
                self._pending = None

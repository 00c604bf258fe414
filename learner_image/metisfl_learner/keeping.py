"""Where a learner keeps an array from one upload to the next: in memory, or in a file that outlives the process."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from metisfl.logs import ContextLogger

Flat: TypeAlias = NDArray[Any]
"""Shape (elements,)."""


class ArrayStore(Protocol):
    """One array, which the caller's code replaces as a whole."""

    def load(self, elements: int) -> Flat | None:
        """A copy of what was saved last; None when there is none of this size."""
        ...

    def save(self, array: Flat) -> None: ...


class InMemory:
    """For learners without a state directory: gone with the process."""

    def __init__(self) -> None:
        self._array: Flat | None = None

    def load(self, elements: int) -> Flat | None:
        del elements
        return None if self._array is None else self._array.copy()

    def save(self, array: Flat) -> None:
        self._array = array


class InFile:
    """A file in the state directory: takes no memory between uploads. Every trouble with it is logged and passed over:
    what it holds begins at zero then."""

    def __init__(self, directory: Path, what: str, dtype: DTypeLike, owner: str, log: ContextLogger) -> None:
        """`what` is kept, in one word. `owner`: whatever it depends on; another owner has another file."""
        self._path = directory / f"{what}-{hashlib.sha256(owner.encode()).hexdigest()[:32]}.npy"
        self._what = what
        self._dtype = np.dtype(dtype)
        self._log = log

    def load(self, elements: int) -> Flat | None:
        try:
            found: Flat = np.load(self._path, allow_pickle=False)
        except FileNotFoundError:
            self._log.info("no %s of earlier uploads was found: it begins at zero", self._what)
            return None
        except (OSError, ValueError, EOFError) as error:
            self._log.warning("the %s in %s is lost, it begins at zero: %s", self._what, self._path, error)
            return None
        if found.shape != (elements,) or found.dtype != self._dtype or not np.isfinite(found).all():
            self._log.warning("the %s in %s is not this model's: it begins at zero", self._what, self._path)
            return None
        return found

    def save(self, array: Flat) -> None:
        unfinished = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            unfinished.replace(self._path)
        except OSError as error:
            self._log.warning("the %s could not be kept, the next upload goes without: %s", self._what, error)

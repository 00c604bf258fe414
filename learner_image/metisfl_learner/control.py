"""A learner's half of SCAFFOLD: its control variate c_i, an estimate of its own gradient.

    every local step   y ← y − η · (g_i(y) − c_i + c)
    after K of them    c_i⁺ = c_i − c + (x − y) / (K · η),   Δc_i = c_i⁺ − c_i
                                                (Karimireddy et al. 2020, arXiv 1910.06378, algorithm 1, option II)

x is the model as received, y what training made of it, c the global control variate. Δc_i is uploaded beside the model
and c_i moves on only when the controller has accepted it. With plain SGD c_i⁺ is the mean gradient of the K steps; with
other optimisers it is what (x − y) / (K · η) makes of them.

A learner without a variate, or with one of another generation, begins at c_i = 0, so Δc_i = c_i⁺; the stamp says so.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.control import STAMP, Stamp
from metisfl.wire.layout import Buffer, Layout
from metisfl_learner.checks import LearnerError
from metisfl_learner.keeping import ArrayStore
from metisfl_learner.learner import Array


class ControlVariate:
    """Beside the store it holds one variate while an upload is neither accepted nor given up."""

    def __init__(self, encoding: Encoding, model: Layout, store: ArrayStore) -> None:
        """`encoding`: of control sections; `model`: the layout of the model that they belong to."""
        assert encoding.codec is Codec.FLOAT32
        self._encoding = encoding
        self._layout = encoding.layout
        self._model = model
        self._store = store
        self._pending: tuple[str, Buffer] | None = None
        self._lock = threading.Lock()

    def correction(self, received: Buffer) -> dict[str, Array]:
        """c − c_i for each trainable floating-point tensor, in its shape, float32 or float64. `received` is c."""
        own, c = self._variate(self._own(received)), self._variate(received)
        return {name: c[name] - own[name] for name in c}

    def change(
        self, task_id: str, model: Buffer, base: Buffer, received: Buffer, *, version: int, steps: int, rate: float
    ) -> Buffer:
        """Δc_i after `steps` steps of `rate` from `base`, which was `version`, to `model`. The variate of an earlier
        task that is neither accepted nor forgotten is given up. Raises LearnerError for what is not finite."""
        self.forget()
        own = self._own(received)
        after, difference = self._layout.allocate(), self._layout.allocate()
        c, c_i, c_plus, change = map(self._variate, (received, own, after, difference))
        x, y = self._model.views(base), self._model.views(model)
        with np.errstate(over="ignore", invalid="ignore"):
            for name in c:
                dtype = c[name].dtype
                gradient = (x[name].astype(dtype) - y[name].astype(dtype)) / dtype.type(steps * rate)
                c_plus[name][...] = c_i[name] - c[name] + gradient
                change[name][...] = c_plus[name] - c_i[name]
        stamp = replace(Stamp.of(self._layout, own), number=version + 1)
        stamp.write(self._layout, difference)
        replace(stamp, previous=stamp.number).write(self._layout, after)
        for each in (difference, after):
            if flaw := self._encoding.flaw(each):
                raise LearnerError(
                    f"the control variate after train() is beyond its range: {flaw}; a larger "
                    "training.learningRate may help"
                )
        with self._lock:
            self._pending = (task_id, after)
        return difference

    def accepted(self, task_id: str) -> None:
        """The controller has this task's change: c_i moves on. Blocks while it is saved."""
        with self._lock:
            if self._pending is None or self._pending[0] != task_id:
                return
            _, after = self._pending
            self._pending = None
            # Within the lock: the next task may have come already, and must not begin with what was kept before.
            self._store.save(after)

    def forget(self, task_id: str | None = None) -> None:
        """This task's upload, or whichever is pending, will not count: c_i stays what it was."""
        with self._lock:
            if self._pending is not None and task_id in (None, self._pending[0]):
                self._pending = None

    def _variate(self, control: Buffer) -> dict[str, Array]:
        """The tensors of a control section's bytes but for the stamp, as views."""
        return {name: view for name, view in self._layout.views(control).items() if name != STAMP}

    def _own(self, received: Buffer) -> Buffer:
        """c_i with its stamp; zero when there is none of the received generation."""
        generation = Stamp.of(self._layout, received).generation
        with self._lock:
            kept = self._store.load(self._layout.nbytes)
        if kept is not None and self._encoding.flaw(kept) is None:
            own: Buffer = kept
            if Stamp.of(self._layout, own).generation == generation:
                return own
        nothing = self._layout.allocate()
        Stamp(generation).write(self._layout, nothing)
        return nothing

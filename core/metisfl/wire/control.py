"""Control variates as they travel: which tensors have one, and in which form.

A control variate is an estimate of a gradient: it has an element for each of a trainable floating-point tensor, in
float64 where that is float64 and in float32 otherwise, as sums of small changes need the digits. Control variates
travel without loss, whatever codec the model has.

With them goes a *stamp*, by which both sides notice that one of them has lost its memory:

    down   [generation, 0, 0]                 a new generation begins at zero, at every learner
    up     [generation, previous, number]     the change leads from the learner's variate of stamp `previous` (0: it had
                                              none) to that of stamp `number`, which is the base version + 1
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metisfl.wire.layout import Buffer, Layout, TensorSpec, is_float, numpy_dtype

STAMP = "metisfl.stamp"
"""The tensor that holds the stamp; no tensor of a model may have this name where control variates are used."""


@dataclass(frozen=True)
class Stamp:
    generation: int = 0
    previous: int = 0
    number: int = 0

    @classmethod
    def of(cls, layout: Layout, control: Buffer) -> Stamp:
        """The stamp in a control section's bytes."""
        return cls(*(int(value) for value in layout.views(control)[STAMP]))

    def write(self, layout: Layout, control: Buffer) -> None:
        layout.views(control)[STAMP][:] = np.array((self.generation, self.previous, self.number))


def control_layout(model: Layout) -> Layout:
    """The layout of a model's control variates. Raises LayoutError for a model that can have none."""
    return Layout(
        (
            *(
                TensorSpec(tensor.name, "float64" if tensor.dtype == "float64" else "float32", tensor.shape)
                for tensor in model.tensors
                if tensor.trainable and is_float(numpy_dtype(tensor.dtype))
            ),
            TensorSpec(STAMP, "int64", (3,), trainable=False),
        )
    )

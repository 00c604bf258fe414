"""Models of a given size in the shapes that aggregation is judged by; all float32, all trainable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from metisfl.wire.layout import Layout, TensorSpec


def uniform16(parameters: int) -> Layout:
    """16 tensors of equal size; the last one takes the rest."""
    share = parameters // 16
    return _flat([share] * 15 + [parameters - 15 * share])


def skewed16(parameters: int) -> Layout:
    """16 tensors, of which one holds 80 % of the parameters: the worst case for work that is divided by tensors."""
    large = parameters * 4 // 5
    share = (parameters - large) // 15
    return _flat([share] * 7 + [parameters - 15 * share] + [share] * 8)


def housing(parameters: int) -> Layout:
    """The multilayer perceptron of MetisFL's stress test (arXiv 2311.00334): 8 → u, 100 layers u → u, u → 1, with the
    width u that comes closest to `parameters`; 32, 100 and 320 for about 100k, 1M and 10M."""
    width = max(1, round(math.sqrt(parameters / 100)))
    widths = [8, *[width] * 101, 1]
    tensors = []
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        tensors.append(TensorSpec(f"dense{layer}.weight", "float32", (inputs, outputs)))
        tensors.append(TensorSpec(f"dense{layer}.bias", "float32", (outputs,)))
    return Layout(tuple(tensors))


LAYOUTS: dict[str, Callable[[int], Layout]] = {"uniform16": uniform16, "skewed16": skewed16, "housing": housing}


def _flat(sizes: list[int]) -> Layout:
    return Layout(tuple(TensorSpec(f"tensor{number}", "float32", (size,)) for number, size in enumerate(sizes)))

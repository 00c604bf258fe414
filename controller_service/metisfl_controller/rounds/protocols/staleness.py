"""How much an update counts that was made from a version which is no longer the newest.

The staleness τ of an update is the number of versions that were made since its own base: 0 when there was none. All
weights are 1 at τ = 0, at most 1 and never rise with τ (FedAsync, arXiv 1903.03934, section 5.2).
"""

from __future__ import annotations

from collections.abc import Callable

from metisfl.spec.protocol import StalenessSpec, StalenessType

Weight = Callable[[int], float]
"""From τ to s(τ), 0 < s ≤ 1."""


def constant(staleness: int) -> float:
    """s(τ) = 1"""
    return 1.0


def polynomial(exponent: float) -> Weight:
    """s(τ) = (1 + τ)^-exponent"""
    return lambda staleness: float((1 + staleness) ** -exponent)


def hinge(a: float, b: int) -> Weight:
    """s(τ) = 1 for τ ≤ b, else 1 / (a·(τ − b) + 1)"""
    return lambda staleness: 1.0 if staleness <= b else 1.0 / (a * (staleness - b) + 1.0)


def weight_of(spec: StalenessSpec) -> Weight:
    match spec.type:
        case StalenessType.CONSTANT:
            return constant
        case StalenessType.POLYNOMIAL:
            return polynomial(float(spec.exponent_or_default))
        case StalenessType.HINGE:
            return hinge(float(spec.a_or_default), spec.b_or_default)

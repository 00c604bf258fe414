"""16-bit floats by their bits: Numba has neither float16 nor bfloat16 on CPUs. Written without branches, so that loops
over them are vectorised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_F16_TO_F32 = np.float32(2.0**112)
"""The ratio of the exponent biases, 127 and 15."""

_u32, _u64 = np.uint32, np.uint64


@njit(inline="always")
def bits_of(single: Any) -> Any:
    return np.float32(single).view(_u32)


@njit(inline="always")
def single_of(bits: Any) -> Any:
    # Numba computes in 64 bits, whatever the operands' width.
    return _u32(bits).view(np.float32)


@njit(inline="always")
def half_to_single(half: Any) -> Any:
    """uint16 bits of a float16 -> the same number in float32; exact."""
    magnitude = _u32(half & 0x7FFF)
    sign = _u32(_u32(half & 0x8000) << 16)
    # As a float32's bits it is 2**112 times too small, for subnormals too.
    bits = bits_of(single_of(magnitude << 13) * _F16_TO_F32)
    special = _u32(0x7F800000) if magnitude >= 0x7C00 else _u32(0)
    return single_of(bits | special | sign)


@njit(inline="always")
def single_to_half(single: Any) -> Any:
    """float32 -> uint16 bits of the nearest float16, ties to even; NaN stays NaN."""
    bits = bits_of(single)
    magnitude = _u32(bits & 0x7FFFFFFF)
    # Rebias the exponent and add half of what is cut off; a carry into the exponent is right, up to infinity.
    normal = _u32(_u32(magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13)
    # A float32 between 0.5 and 1 has the spacing of float16's subnormals: the addition rounds.
    half = np.float32(0.5)
    subnormal = _u32(bits_of(single_of(magnitude) + half) - bits_of(half))
    special = _u32(0x7E00) if magnitude > 0x7F800000 else _u32(0x7C00)
    finite = subnormal if magnitude < 0x38800000 else normal
    return np.uint16((special if magnitude >= 0x47800000 else finite) | ((bits >> 16) & 0x8000))


@njit(inline="always")
def brain_to_single(brain: Any) -> Any:
    """uint16 bits of a bfloat16 -> the same number in float32; exact."""
    return single_of(_u32(brain) << 16)


@njit(inline="always")
def single_to_brain(single: Any) -> Any:
    """float32 -> uint16 bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = bits_of(single)
    rounded = _u32((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
    quiet = _u32((bits >> 16) | 0x40)
    return np.uint16(quiet if (bits & 0x7FFFFFFF) > 0x7F800000 else rounded)


@njit(inline="always")
def to_odd(double: Any) -> Any:
    """float64 -> float32, so that rounding on to 16 bits gives what rounding once would have given.

    What is cut off leaves a trace in the last bit (Boldo and Melquiond 2008, "Emulation of a FMA and correctly
    rounded sums: proved algorithms using rounding to odd"). Below 2**-126, where float32 has fewer bits, it may not.
    """
    bits = np.float64(double).view(_u64)
    rest = bits & _u64(0x1FFFFFFF)
    trace = _u64(0x20000000) if rest != 0 else _u64(0)
    return np.float32(_u64((bits ^ rest) | trace).view(np.float64))

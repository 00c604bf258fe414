"""Sixteen elements at a time, written out as vectors for LLVM.

Left to itself, LLVM vectorises the inner loop over models four elements wide and waits for each addition before the
next. Sixteen are four independent chains on a machine with AVX2 and two with AVX-512, which is what keeps a core's
arithmetic ahead of its memory (docs/decisions/0011-kernels.md has figures).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDTH = 16

_DOUBLES = ir.VectorType(ir.DoubleType(), WIDTH)
_SINGLES = ir.VectorType(ir.FloatType(), WIDTH)
_HALVES = ir.VectorType(ir.IntType(16), WIDTH)
_WORDS = ir.VectorType(ir.IntType(32), WIDTH)


def _adder(element: ir.VectorType, size: int, widen: Callable[[Any, Any], Any]) -> Any:
    """`add(sums, models, weights, offset)` for models whose elements have `size` bytes: adds WIDTH of them to as many
    float64 sums, s = s + w·x for each, one model after the other.

    `sums` (int64) and `models` (tuple of int64) are addresses of first elements, `weights` a tuple of float64; the
    elements are at `offset` from there. The multiplication and the addition may be fused into one rounding.
    """

    @intrinsic
    def add(typing_context: Any, sums: Any, models: Any, weights: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            sums, models, weights, offset = arguments

            def at(address: Any, size: int, of: ir.VectorType) -> Any:
                place = builder.add(address, builder.mul(offset, ir.Constant(offset.type, size)))
                return builder.inttoptr(place, of.as_pointer())

            target = at(sums, 8, _DOUBLES)
            total = builder.load(target, align=8)
            for k in range(signature.args[1].count):
                elements = builder.load(at(builder.extract_value(models, k), size, element), align=size)
                weight = _repeated(builder, builder.extract_value(weights, k))
                product = builder.fmul(weight, widen(builder, elements), flags=("contract",))
                total = builder.fadd(total, product, flags=("contract",))
            builder.store(total, target, align=8)
            return context.get_dummy_value()

        return types.void(types.int64, models, weights, types.int64), generate

    return add


def _single_to_double(builder: Any, singles: Any) -> Any:
    return builder.fpext(singles, _DOUBLES)


def _brain_to_double(builder: Any, brains: Any) -> Any:
    bits = builder.shl(builder.zext(brains, _WORDS), ir.Constant(_WORDS, [16] * WIDTH))
    return builder.fpext(builder.bitcast(bits, _SINGLES), _DOUBLES)


add_singles = _adder(_SINGLES, 4, _single_to_double)
add_brains = _adder(_HALVES, 2, _brain_to_double)


def _repeated(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_DOUBLES, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))

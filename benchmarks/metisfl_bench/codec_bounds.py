"""The error bounds of the codecs as docs/codecs.md states them, on their own: no code of the codecs is used."""

from __future__ import annotations

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.codecs import Codec

_INT8_BLOCK = 64

Doubles = NDArray[np.float64]


def share_of_bound(codec: Codec, exact: Doubles, decoded: Doubles) -> float:
    """The largest error of any value as a share of what the codec allows it: at most 1 when it keeps its word.

    TopK allows none for what is sent; of what is not, the largest magnitude is taken as a share of the smallest sent.
    Where no error is allowed, one makes the share infinite. `exact` holds float32 numbers.
    """
    if codec is Codec.TOPK:
        sent = decoded != 0
        if not np.array_equal(decoded[sent], exact[sent]):
            return float("inf")
        left, kept = np.abs(exact[~sent]), np.abs(exact[sent])
        return _largest(left, np.full(left.shape, kept.min(initial=np.inf)))
    return _largest(np.abs(decoded - exact), _bound(codec, exact))


def _largest(errors: Doubles, bounds: Doubles) -> float:
    wrong = errors > 0
    with np.errstate(divide="ignore"):
        return float((errors[wrong] / bounds[wrong]).max(initial=0.0))


def _bound(codec: Codec, exact: Doubles) -> Doubles:
    match codec:
        case Codec.FLOAT32 | Codec.TOPK:
            return np.zeros_like(exact)
        case Codec.BFLOAT16:
            return np.maximum(2.0**-8 * np.abs(exact), 2.0**-134)
        case Codec.FLOAT16:
            return np.maximum(2.0**-11 * np.abs(exact), 2.0**-25)
        case Codec.INT8:
            blocks = -(-exact.size // _INT8_BLOCK)
            padded = np.zeros(blocks * _INT8_BLOCK)
            padded[: exact.size] = np.abs(exact)
            largest = padded.reshape(blocks, _INT8_BLOCK).max(axis=1)
            each = np.where(largest < 127 * 2.0**-126, largest, largest / 127 * (0.5 + 2.0**-16))
            return np.repeat(each, _INT8_BLOCK)[: exact.size]
        case _:
            assert_never(codec)

"""Numbers for what the kernels read and write. Kernels get addresses, and a kind says what lies there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metisfl.wire.layout import Buffer
from metisfl.wire.segments import EncodedSegment, Form

FLOAT32, FLOAT64, FLOAT16, BFLOAT16, INT8, INT16, INT32, INT64, UINT8, BOOL, SCALED, SPARSE = range(12)
"""Elements of a dtype; SCALED: int8 codes with a float32 scale for each 64; SPARSE: indices and values of TopK."""

NOTHING = -1

SCALE_BLOCK = 64
"""Elements of SCALED that share a scale."""

_BY_DTYPE = {
    "float32": FLOAT32,
    "float64": FLOAT64,
    "float16": FLOAT16,
    "bfloat16": BFLOAT16,
    "int8": INT8,
    "int16": INT16,
    "int32": INT32,
    "int64": INT64,
    "uint8": UINT8,
    "bool": BOOL,
}
_BY_FORM = {Form.BFLOAT16: BFLOAT16, Form.FLOAT16: FLOAT16, Form.INT8: SCALED, Form.TOPK: SPARSE}


def kind_of_dtype(dtype: np.dtype[Any]) -> int:
    return _BY_DTYPE[dtype.name]


def kind_of(encoded: EncodedSegment) -> int:
    """What lies in a segment's place of an encoded section."""
    return kind_of_dtype(encoded.segment.dtype) if encoded.form is Form.RAW else _BY_FORM[encoded.form]


def planes(encoded: EncodedSegment, content: Buffer) -> tuple[NDArray[Any], ...]:
    """The arrays that a segment consists of in an encoded section: one, or two where its kind has two."""
    match encoded.form:
        case Form.RAW:
            return (encoded.raw(content),)
        case Form.BFLOAT16 | Form.FLOAT16:
            return (encoded.halves(content),)
        case Form.INT8:
            return encoded.codes(content), encoded.scales(content)
        case Form.TOPK:
            return encoded.indices(content), encoded.values(content)


def require(buffer: Buffer, nbytes: int, what: str) -> None:
    """Kernels believe the layout. Raises ValueError for a buffer that they would read or write beyond."""
    if buffer.size < nbytes:
        raise ValueError(f"{what} of {buffer.size} bytes, and {nbytes} are needed")

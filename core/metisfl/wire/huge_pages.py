"""Memory for models in huge pages, where the kernel has any. Linux only.

A model is read from end to end, many models side by side. Pages of 4 KiB are too small for that: one ends soon after
the processor has noticed what will be read next, and each has to be looked up (docs/decisions/0011-kernels.md).
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE = 1 << 21


def zeros_in_huge_pages(nbytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes that start on the border of a huge page; pages are not touched until they are written. Raises
    MemoryError."""
    try:
        mapping = mmap.mmap(-1, nbytes + 2 * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no room for {nbytes} bytes: {error}") from error
    raw = np.frombuffer(mapping, np.uint8)
    start = -raw.ctypes.data % HUGE_PAGE
    # The last one only if at least half of it is used.
    whole = (nbytes + HUGE_PAGE // 2) // HUGE_PAGE * HUGE_PAGE
    with suppress(OSError):  # a kernel that was built without them
        mapping.madvise(mmap.MADV_HUGEPAGE, start, whole)
    return raw[start : start + nbytes]

"""Keeps glibc from handing the memory of every chunk back to the kernel.

gRPC and Python allocate and free some MiB for each MiB that arrives. By default glibc returns such blocks to the kernel
at once, and the kernel zeroes and maps fresh pages for the next ones: on a fast network more time goes into page
faults than into copying (docs/decisions/0015-grpc-tuning.md has figures).
"""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8

_KEPT_BYTES = 128 << 20
"""Free memory at the top of the heap that is kept for what comes next."""

_MODEL_BYTES = 16 << 20
"""Blocks of this size and above are models and not chunks: they still go back to the kernel when they are freed."""


def keep_chunk_memory(*, one_arena: bool) -> bool:
    """Change the settings of this process; False where the C library is not glibc, and nothing changes.

    With `one_arena` all threads share one heap: less memory is kept, and threads that allocate at the same time wait
    for each other. Right for a controller, wrong beside a framework with many threads.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt(_MMAP_THRESHOLD, _MODEL_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    if one_arena:
        mallopt(_ARENA_MAX, 1)
    return True

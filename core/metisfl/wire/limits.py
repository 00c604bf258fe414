"""Bounds on what is taken from the other side, and the sizes transfers are cut into."""

from __future__ import annotations

PROTOCOL_VERSION = 1
"""Raised when an old peer would misunderstand a new one."""

CHUNK_BYTES = 1 << 20
"""Payload of a full chunk, and so the blocks that sections are cut into. One stream of 1 MiB messages is where grpcio
moves the most bytes per second."""

MAX_MESSAGE_BYTES = 4 << 20
"""Largest gRPC message either side accepts: a chunk, a layout of MAX_TENSORS, or something wrong."""

MAX_TENSORS = 20_000
MAX_TENSOR_NAME = 512
MAX_DIMENSIONS = 32
MAX_MODEL_BYTES = 1 << 40

MAX_METRICS = 64
MAX_METRIC_NAME = 63
METRIC_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
MAX_COUNT = 1 << 48
"""Of examples and batches: sums of them stay exact in float64 and fit a database's integers."""

MAX_HELD_TASKS = 16
MAX_ERROR_CHARACTERS = 4_000

ALIGNMENT = 64
"""Segments start on a cache line; the widest vector instructions want the same."""

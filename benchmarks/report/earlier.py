"""MetisFL's C++ controller, measured earlier on a machine of this kind, not in the runs of this page.

Its times are of whole rounds made as `metisfl bench round` makes them (one process with all learners, which do no
training; loopback, no TLS), and of its OpenMP aggregation of 25 models of 10M float32 parameters.
"""

from __future__ import annotations

ROUND_SECONDS = {
    (10, "100k"): 0.021,
    (25, "100k"): 0.041,
    (10, "1M"): 0.105,
    (25, "1M"): 0.237,
    (50, "1M"): 0.426,
    (10, "10M"): 1.160,
    (25, "10M"): 2.659,
}

AGGREGATE_SECONDS = {(25, "10M", "uniform16"): 0.082, (25, "10M", "skewed16"): 0.145}

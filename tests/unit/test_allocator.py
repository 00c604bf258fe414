"""Page faults, as the kernel counts them, are the oracle: memory that is kept is not mapped anew."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CHURN = """
import resource, sys
from metisfl.allocator import keep_chunk_memory

if sys.argv[1] == "kept":
    assert keep_chunk_memory(one_arena=True)

def churn(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        chunks = [bytes(bytearray(b"x") * (1 << 20)) for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

churn(2)
print(churn(20))
"""


def faults(mode: str) -> int:
    result = subprocess.run(
        [sys.executable, "-c", _CHURN, mode], capture_output=True, text=True, check=True, timeout=60
    )
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_chunks_come_from_memory_that_was_kept() -> None:
    pages = 20 * 16 * (1 << 20) // 4096
    assert faults("default") > pages / 4
    assert faults("kept") < pages / 50

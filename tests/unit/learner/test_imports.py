"""What a learner process loads before it knows which framework its class wants."""

from __future__ import annotations

import subprocess
import sys


def test_learner_loads_no_framework_and_nothing_of_the_other_rooms() -> None:
    heavy = "torch sklearn scipy numba kopf kubernetes fastapi metisfl_controller metisfl_operator"
    program = f"import sys, metisfl_learner.__main__; print([m for m in {heavy.split()} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.strip() == "[]"

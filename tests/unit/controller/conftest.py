"""Kernels are compiled once and kept where the controller keeps them, so that only the first session ever waits."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Before anything imports numba, which reads it once.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"metisfl-kernels-{os.getuid()}"))


@pytest.fixture(scope="session")
def kernels() -> object:
    """The kernels module, configured for two threads."""
    from metisfl_controller.aggregation import kernels as module

    module.configure(2)
    return module

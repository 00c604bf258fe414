"""A starter for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.local.runs import FAKES, FEDERATION, REAL_FEDERATION, Starter


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Runs with stand-ins for controller and learners."""
    starter = Starter(tmp_path, FEDERATION, str(FAKES))
    yield starter
    starter.end()


@pytest.fixture
def start_real(tmp_path: Path) -> Iterator[Starter]:
    """Runs of a small NumPy learner, which lies beside its federation.yaml as users have it."""
    shutil.copy(Path(__file__).parent / "line_learner.py", tmp_path)
    starter = Starter(tmp_path, REAL_FEDERATION, "")
    yield starter
    starter.end()

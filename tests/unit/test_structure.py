"""Rules on the tree itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_operator_is_not_a_package() -> None:
    """A top-level package of that name would shadow the standard library's `operator`."""
    assert (ROOT / "operator" / "metisfl_operator").is_dir()
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protos")
    subprocess.run(
        [ROOT / "hack" / "protos", folder],
        check=True,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        timeout=60,
    )
    return folder


def test_every_proto_is_compiled(generated: Path) -> None:
    protos = {path.relative_to(ROOT / "core").with_suffix("") for path in (ROOT / "core").rglob("*.proto")}
    assert protos
    assert {
        path.relative_to(generated).parent / path.stem.removesuffix("_pb2") for path in generated.rglob("*.py")
    } == (protos)


def test_message_classes_are_not_stale(generated: Path) -> None:
    stale = [
        path.relative_to(generated)
        for path in sorted(generated.rglob("*_pb2.py*"))
        if path.read_text() != (ROOT / "core" / path.relative_to(generated)).read_text()
    ]
    assert not stale, "run hack/protos"

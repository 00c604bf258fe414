"""What a person has who knows nothing but kubectl: its explanations, and the command line as its plug-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("mfed", "A federated-learning run"),
        ("mfed.spec.protocol", "Synchronous: rounds in which all participants start from the same version."),
        ("mfed.spec.protocol.synchronous.quorumPercent", "Share of a round's participants, in percent"),
        ("mfed.spec.learnerGroups.external", "Without pods: these learners join from outside"),
        ("mfed.status.conditions", "kubectl wait --for=condition=Complete"),
    ],
)
def test_kubectl_explains(lab: Any, field: str, words: str) -> None:
    assert words in " ".join(lab.kubectl("explain", field).split())


def test_kubectl_finds_the_plug_in(lab: Any, kubeconfig: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [lab.kubectl.executable, "metisfl", "status", "-n", lab.namespace],
        env={**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "federation" in done.stdout.lower()

"""Every protocol with every aggregation rule: it completes, or it is refused beforehand with the reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from metisfl.local.record import RunRecord
from metisfl.spec import SpecError, parse_federation
from metisfl.spec.aggregation import AggregationRule

VERSIONS = 3
PROTOCOLS: dict[str, dict[str, Any]] = {
    "Synchronous": {"type": "Synchronous"},
    "SemiSynchronous": {"type": "SemiSynchronous"},
    "FedAsync": {"type": "Asynchronous"},
    "FedBuff": {"type": "Asynchronous", "asynchronous": {"bufferSize": 5, "mixing": "1"}},
}
WITHOUT_ROUNDS = {
    "FedAsync": {"FedAvg", "FedStride", "FedNova", "FedRec"},
    "FedBuff": {"FedAvg", "FedStride", "FedNova"},
}


def document(protocol: str, rule: AggregationRule) -> dict[str, Any]:
    """Seven learners: as many as Bulyan needs to bear one attacker."""
    return {
        "apiVersion": "metisfl.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": "pair"},
        "spec": {
            "learner": {
                "entrypoint": "metisfl_learner.examples.digits:DigitsLearner",
                "parameters": {"hidden": "8", "alpha": "10"},
            },
            "training": {"learningRate": "0.1"},
            "protocol": PROTOCOLS[protocol],
            "aggregation": {"rule": str(rule)},
            "termination": {"maxRounds": VERSIONS},
            "learnerGroups": [{"name": "a", "replicas": 7}],
        },
    }


PAIRS = [(protocol, rule) for protocol in PROTOCOLS for rule in AggregationRule]


@pytest.mark.parametrize(("protocol", "rule"), PAIRS)
def test_what_cannot_go_together_is_refused_with_the_reason(protocol: str, rule: AggregationRule) -> None:
    if rule in WITHOUT_ROUNDS.get(protocol, set(AggregationRule)):
        parse_federation(document(protocol, rule))
        return
    with pytest.raises(SpecError, match="rotocol Asynchronous needs"):
        parse_federation(document(protocol, rule))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("protocol", "rule"), [pair for pair in PAIRS if pair[1] in WITHOUT_ROUNDS.get(pair[0], set(AggregationRule))]
)
def test_what_goes_together_completes(protocol: str, rule: AggregationRule, tmp_path: Path) -> None:
    file, output = tmp_path / "federation.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(document(protocol, rule)))
    command = [sys.executable, "-m", "metisfl", "run", str(file), "--output", str(output), "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    record = RunRecord.model_validate_json((output / "summary.json").read_text())
    assert record.document.committed_rounds == VERSIONS
    (accuracy,) = [metric for metric in record.document.metrics if metric.name == "accuracy"]
    assert accuracy.version == VERSIONS
    assert accuracy.value > 0.12, "better than chance"

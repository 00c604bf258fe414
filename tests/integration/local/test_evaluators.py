"""The digits with learners in turns and an evaluator beside them, as `metisfl run` has them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

from metisfl.local.record import RunRecord

FEDERATION = """
apiVersion: metisfl.dev/v1alpha1
kind: Federation
metadata: {name: digits}
spec:
  learner: {entrypoint: "metisfl_learner.examples.digits:DigitsLearner", parameters: {alpha: "100"}}
  training: {epochs: 10, batchSize: 32, learningRate: "0.2"}
  selection: {type: RoundRobin, roundRobin: {learners: 1}}
  aggregation: {weighting: CompletedBatches}
  controller: {keepVersions: 100}
  termination: {maxRounds: 2000, targetMetric: {name: accuracy, atLeast: "0.8", patience: 2, source: Evaluators}}
  learnerGroups:
    - {name: silo, replicas: 2}
    - {name: judge, role: Evaluator}
"""


def test_an_evaluators_metrics_end_a_run_and_stand_apart(tmp_path: Path) -> None:
    file, output = tmp_path / "federation.yaml", tmp_path / "out"
    file.write_text(FEDERATION)
    done = subprocess.run(
        [sys.executable, "-m", "metisfl", "run", str(file), "--output", str(output), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    record = RunRecord.model_validate_json((output / "summary.json").read_text())
    (judge,) = record.document.evaluators
    # Every held-out image, where each learner has a half of them.
    assert judge.test_examples == sum(learner.test_examples for learner in record.document.learners)
    assert judge.evaluations >= 2
    assert record.document.reason == "TargetMetricReached"
    assert "2 evaluated versions in a row" in record.document.message
    assert summary["evaluatorMetrics"]["accuracy"] >= 0.8
    assert record.document.global_model is not None
    assert record.document.global_model.version == record.document.evaluator_metrics[0].version
    assert "evaluators' accuracy" in done.stderr
    report = (output / "report.html").read_text()
    assert "evaluators&#39; accuracy" in report
    assert "judge-0" in report
    turns = [entry.participants for entry in record.rounds]
    assert all(len(participants) == 1 for participants in turns)
    assert all(before != after for before, after in itertools.pairwise(turns))

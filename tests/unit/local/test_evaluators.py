"""Metrics by evaluators beside the learners' own: in words, on the terminal and in the report."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from metisfl.api import EvaluatorDocument, MetricValue
from metisfl.local.folder import RunFolder
from metisfl.local.outcome import Outcome, told
from metisfl.local.progress.display import Snapshot
from metisfl.local.progress.live import frame
from metisfl.local.progress.trends import trends
from metisfl.local.progress.words import goal, shape
from metisfl.local.record import RunRecord
from metisfl.local.report.page import evaluator_table, figures, round_table
from metisfl.local.report.render import render
from metisfl.local.report.series import Points, curves
from metisfl.spec import Federation, parse_federation
from tests.unit.local.samples import START, YAML, record


def federation(**spec: Any) -> Federation:
    document = yaml.safe_load(YAML)
    document["spec"]["learnerGroups"].append({"name": "judge", "role": "Evaluator"})
    document["spec"].update(spec)
    return parse_federation(document)


def judged() -> RunRecord:
    """Three rounds, of whose versions an evaluator has seen the first and the last."""
    plain = record(3)
    values = {1: 0.5, 3: 0.75}
    rounds = [
        entry.model_copy(update={"evaluator_metrics": by_evaluators(entry.number, values[entry.number])})
        if entry.number in values
        else entry
        for entry in plain.rounds
    ]
    judge = EvaluatorDocument(
        id="judge-0",
        group="judge",
        connected=True,
        activity="Idle",
        test_examples=360,
        version=3,
        evaluations=2,
        missed=1,
    )
    document = plain.document.model_copy(
        update={"evaluators": [judge], "desired_evaluators": 1, "evaluator_metrics": by_evaluators(3, 0.75)}
    )
    return plain.model_copy(update={"rounds": rounds, "models": [], "document": document})


def by_evaluators(version: int, value: float) -> list[MetricValue]:
    return [MetricValue(name="accuracy", value=value, version=version, examples=360)]


def test_the_goal_and_the_shape_name_selection_evaluators_and_every_end() -> None:
    found = federation(
        selection={"type": "PerGroup", "perGroup": {"learners": 1}},
        termination={
            "maxRounds": 5,
            "targetMetric": {"name": "accuracy", "atLeast": "0.9", "patience": 2, "source": "Evaluators"},
            "plateau": {"metric": "loss", "goal": "Minimise", "rounds": 4},
        },
    )
    assert goal(found) == (
        "at most 5 rounds, until evaluators' accuracy ≥ 0.9 for 2 versions in a row, "
        "until loss has not improved for 4 versions"
    )
    assert ", 1 evaluator, Synchronous, FedAvg, selection PerGroup" in shape(found)


def test_trends_and_the_frame_show_them_apart() -> None:
    run = judged()
    found = trends(run.document, run.rounds)
    assert found["evaluators' accuracy"] == [0.5, 0.75]
    assert found["accuracy"][-1] != 0.75
    console = Console(file=io.StringIO(), width=110, height=40)
    console.print(frame(federation(), Snapshot(run.document, run.rounds, {}, START + timedelta(seconds=9)), 40))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert any("judge-0" in line and "360 held out" in line for line in lines)
    assert any("evaluators' accuracy" in line and "0.75" in line for line in lines)


def test_the_report_has_a_curve_a_column_and_a_table_for_them() -> None:
    run = judged()
    accuracy = next(entry for entry in curves(run) if entry.name == "accuracy")
    assert accuracy.evaluators == Points((1, 3), (0.5, 0.75))
    table = round_table(run)
    column = table.columns.index("evaluators' accuracy")
    assert [row[column] for row in table.rows] == ["0.5", "", "0.75"]
    assert evaluator_table(run).rows == (("judge-0", "360", "2", "1", "0", ""),)
    assert ("evaluators' accuracy", "0.75") in [(figure.label, figure.value) for figure in figures(run)]
    page = render(run)
    assert "<h2>Evaluators</h2>" in page
    assert "<h2>Evaluators</h2>" not in render(record(3))


def test_the_end_of_a_run_tells_both(tmp_path: Path) -> None:
    outcome = Outcome(
        complete=True,
        final=True,
        reason="Plateau",
        message="",
        rounds=3,
        seconds=1.0,
        metrics={"accuracy": 0.5},
        evaluator_metrics={"accuracy": 0.75},
    )
    assert outcome.as_json()["evaluatorMetrics"] == {"accuracy": 0.75}
    lines = told(outcome, RunFolder(tmp_path), "metisfl run")
    assert "  accuracy             0.5" in lines
    assert "  evaluators' accuracy 0.75" in lines

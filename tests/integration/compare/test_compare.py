"""This project's side of the comparison for real; the other systems would need the network to be installed."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from benchmarks.compare.__main__ import main
from benchmarks.compare.report import section
from benchmarks.compare.results import Results, file_of


def test_this_project_is_compared_with_itself(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, ["--quick", "--only", "metisfl", "--output", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output

    aggregations = Results.read(file_of(tmp_path, "aggregate"))
    assert [result["path"] for result in aggregations.results] == ["FedAvg kernel", "engine"]
    assert {result["inputs_crc32"] for result in aggregations.results} == {aggregations.results[0]["inputs_crc32"]}
    for result in aggregations.results:
        assert (result["learners"], result["parameters"], result["layout"]) == (2, 10_000, "uniform16")
        assert 0 < result["max_abs_error"] <= 2e-7
        assert 0 < result["seconds_min"] <= result["seconds_median"]

    rounds = Results.read(file_of(tmp_path, "round"))
    assert [result["setup"] for result in rounds.results] == [
        "one process with all learners",
        "a process per learner",
    ]
    assert all(result["seconds_min"] > 0 for result in rounds.results)
    assert not aggregations.skipped + rounds.skipped
    assert rounds.command == "python -m benchmarks.compare --only metisfl --quick"
    assert rounds.versions["metisfl"]["metisfl-operator"]

    text = section(tmp_path, tmp_path / "images")
    assert "Aggregation alone" in text
    assert str(tmp_path) not in text + file_of(tmp_path, "round").read_text()

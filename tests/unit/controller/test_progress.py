"""What a restarted controller knows of the rounds before it: for selection, and for the end."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from metisfl.spec.termination import MetricSource
from metisfl.wire.transport import Transport
from metisfl_controller.aggregation.memory import ModelMemory
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.rounds.evaluation import Mean
from metisfl_controller.rounds.selection.selector import History
from metisfl_controller.rounds.termination.termination import Observed
from metisfl_controller.state.records import Contribution
from metisfl_controller.state.store import Store
from tests.unit.controller.test_store import LAYOUT, commit, model, record


async def test_parts_in_rounds_and_metrics_come_back(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "uid-1", "digits")) as store:
        store.commit_initial(LAYOUT, model())
        commit(store, 1)
        later = record(2, contributed={"a-0": Contribution(10, 2, 1.5, {"accuracy": 0.5})}, lost=("a-1",))
        store.commit_round(store.write_model(2, LAYOUT, model(2)), later)
        store.record_metrics(1, {"accuracy": Mean(0.5, 10)})
        store.record_metrics(1, {"accuracy": Mean(0.75, 10)}, MetricSource.EVALUATORS)
        store.record_metrics(2, {"accuracy": Mean(0.9, 10)})
    progress = Progress(Store(tmp_path, "uid-1", "digits"), ModelMemory(1 << 20, tmp_path / "staging"), Transport())
    try:
        await progress.load()
        assert progress.learners == {
            # Of the metrics it reported, the last value of each.
            "a-0": History(2, 2, {"loss": 0.25, "accuracy": 0.5}),
            "a-1": History(2, 2, {}),
            "b-0": History(1, 1, {}),
        }
        # Version 2 is evaluated again.
        assert progress.observed == [
            Observed(MetricSource.EVALUATORS, 1, {"accuracy": 0.75}),
            Observed(MetricSource.LEARNERS, 1, {"accuracy": 0.5}),
        ]
        assert progress.evaluator_metrics == {1: {"accuracy": Mean(0.75, 10)}}
    finally:
        await progress.close()


async def test_a_version_whose_file_is_gone_is_not_published(tmp_path: Path) -> None:
    progress = Progress(Store(tmp_path, "uid-1", "digits"), ModelMemory(1 << 20, tmp_path / "staging"), Transport())
    try:
        store = progress.store
        store.commit_initial(LAYOUT, model())
        for number in range(1, 5):
            commit(store, number)
        kept = [version.version for version in store.versions() if version.stored]
        assert kept == [2, 3, 4]
        for wanted in (2, 4):
            assert await progress.publishable(wanted, "reached") == (wanted, "reached")
        assert await progress.publishable(1, "reached") == (
            4,
            "reached; that version is not kept any more, so version 4 is published",
        )
        assert await progress.publishable(None, "failed") == (None, "failed")
    finally:
        await progress.close()

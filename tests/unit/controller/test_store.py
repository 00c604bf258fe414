"""The state directory: what survives a crash, and what is refused."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from metisfl.spec.termination import MetricSource
from metisfl.wire.layout import Buffer, Layout
from metisfl_controller.rounds.evaluation import Mean
from metisfl_controller.rounds.termination.termination import Observed
from metisfl_controller.state.records import Contribution, Outcome, RoundRecord, StateError
from metisfl_controller.state.store import Store

ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(2.5),
    "half": np.full(3, 0.5, np.float16),
    "flags": np.array([True, False]),
    "none": np.zeros((0, 4), np.int64),
}
LAYOUT = Layout.of(ARRAYS, frozen=["half"])


def model(add: float = 0) -> Buffer:
    return LAYOUT.pack({**ARRAYS, "w": ARRAYS["w"] + np.float32(add)})


def record(number: int, **changes: object) -> RoundRecord:
    values: dict[str, object] = {
        "number": number,
        "version": number,
        "started_at": 100.0 * number,
        "ended_at": 100.0 * number + 5,
        "attempts": 1,
        "train_seconds": 3.0,
        "aggregate_seconds": 1.0,
        "commit_seconds": 0.5,
        "bytes_received": 10,
        "bytes_sent": 20,
        "contributed": {"a-0": Contribution(10, 2, 1.5, {"loss": 0.25}), "a-1": Contribution(30)},
        "lost": ("b-0",),
        **changes,
    }
    return RoundRecord(**values)  # type: ignore[arg-type]


def commit(store: Store, number: int) -> None:
    store.commit_round(store.write_model(number, LAYOUT, model(number)), record(number))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state", "uid-1", "digits")
    yield store
    store.close()


def test_a_new_directory_is_empty_and_counts_its_controllers(tmp_path: Path) -> None:
    for incarnation in (1, 2, 3):
        store = Store(tmp_path / "a" / "b", "uid-1", "digits")
        snapshot = store.snapshot()
        assert snapshot.incarnation == incarnation
        assert (snapshot.layout, snapshot.latest, snapshot.started_at, snapshot.outcome) == (None,) * 4
        assert store.versions() == []
        assert store.rounds() == []
        store.close()


def test_everything_comes_back_after_a_restart(tmp_path: Path) -> None:
    outcome = Outcome("Complete", "MaxRoundsReached", "all done", 400.0, 2)
    with closing(Store(tmp_path, "uid-1", "digits")) as store:
        store.commit_initial(LAYOUT, model())
        store.record_start(99.0)
        store.record_start(200.0)
        store.record_metrics(0, {"accuracy": Mean(0.5, 40), "loss": Mean(2.0, 40)})
        store.record_metrics(0, {"accuracy": Mean(0.75, 60)})
        for number in (1, 2):
            commit(store, number)
        store.record_metrics(1, {"accuracy": Mean(0.25, 10)}, conclusive=False)
        store.record_metrics(1, {"accuracy": Mean(0.5, 7)}, MetricSource.EVALUATORS)
        store.record_outcome(outcome)
    with closing(Store(tmp_path, "uid-1", "digits")) as store:
        snapshot = store.snapshot()
        assert snapshot.layout == LAYOUT
        assert snapshot.latest is not None
        assert snapshot.latest.version == 2
        assert snapshot.started_at == 99.0
        assert snapshot.outcome == outcome
        assert store.metrics() == {
            0: {"accuracy": Mean(0.75, 60), "loss": Mean(2.0, 40)},
            1: {"accuracy": Mean(0.25, 10)},
        }
        assert store.metrics(MetricSource.EVALUATORS) == {1: {"accuracy": Mean(0.5, 7)}}
        # What is not conclusive is shown, and not held against the end of the federation.
        assert store.observed(before=2) == [
            Observed(MetricSource.LEARNERS, 0, {"accuracy": 0.75, "loss": 2.0}),
            Observed(MetricSource.EVALUATORS, 1, {"accuracy": 0.5}),
        ]
        assert store.observed(before=1) == [Observed(MetricSource.LEARNERS, 0, {"accuracy": 0.75, "loss": 2.0})]
        assert store.rounds() == [record(1), record(2)]
        for version in store.versions():
            weights = LAYOUT.views(store.read(version, LAYOUT))["w"]
            np.testing.assert_array_equal(weights, ARRAYS["w"] + np.float32(version.version))


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [(0, None, [1, 2, 3, 4]), (0, 3, [1, 2, 3]), (3, 3, [4]), (4, 3, []), (9, None, []), (1, 2, [2, 3])],
)
def test_rounds_are_read_in_pages(store: Store, after: int, limit: int | None, expected: list[int]) -> None:
    store.commit_initial(LAYOUT, model())
    made = [record(number, tasks=(f"a-0:1:{number - 1}:1", f"a-1:1:{number - 1}:1")) for number in range(1, 5)]
    for entry in made:
        store.commit_round(store.write_model(entry.number, LAYOUT, model(entry.number)), entry)
    assert store.rounds(after, limit) == [made[number - 1] for number in expected]


def test_a_version_is_found_by_its_number(store: Store) -> None:
    store.commit_initial(LAYOUT, model())
    for number in range(1, 5):
        commit(store, number)
    assert store.version(7) is None
    assert [store.version(number) for number in range(5)] == store.versions()
    assert store.stored() == [version for version in store.versions() if version.stored] != []
    assert store.snapshot().latest == store.version(4)


def test_without_checkpoints_a_restart_begins_anew(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "uid-1", "digits", checkpoints=False)) as store:
        store.commit_initial(LAYOUT, model())
        for number in (1, 2):
            commit(store, number)
            store.record_metrics(number, {"accuracy": Mean(0.5, 40)})
        assert [(version.version, version.stored) for version in store.versions()] == [
            (0, True),
            (1, False),
            (2, False),
        ]
        assert store.rounds() == [record(1), record(2)]
        assert [path.name for path in (tmp_path / "models").iterdir()] == ["v000000.safetensors"]
    with closing(Store(tmp_path, "uid-1", "digits")) as store:
        latest = store.snapshot().latest
        assert latest is not None
        assert latest.version == 0
        assert (store.rounds(), store.metrics()) == ([], {})
        commit(store, 1)
        assert store.rounds() == [record(1)]


def test_a_version_is_a_safetensors_file_that_anyone_can_read(store: Store) -> None:
    stored = store.commit_initial(LAYOUT, model())
    path = store.path(stored)
    assert path.name == "v000000.safetensors"
    assert path.stat().st_size == stored.bytes
    loaded = load_file(path)
    assert set(loaded) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_three_versions_are_kept(store: Store) -> None:
    store.commit_initial(LAYOUT, model())
    for number in range(1, 6):
        commit(store, number)
    assert [(v.version, v.stored) for v in store.versions()] == [
        (0, False),
        (1, False),
        (2, False),
        (3, True),
        (4, True),
        (5, True),
    ]
    assert sorted(path.name for path in (store.directory / "models").iterdir()) == [
        f"v{number:06}.safetensors" for number in (3, 4, 5)
    ]


def test_a_file_that_is_gone_already_does_not_stop_pruning(store: Store) -> None:
    store.path(store.commit_initial(LAYOUT, model())).unlink()
    for number in range(1, 4):
        commit(store, number)
    assert [v.stored for v in store.versions()] == [False, True, True, True]


def test_a_round_is_committed_whole_or_not_at_all(store: Store) -> None:
    """A learner that both contributed and was lost breaks the last statement of the transaction."""
    store.commit_initial(LAYOUT, model())
    stored = store.write_model(1, LAYOUT, model(1))
    with pytest.raises(sqlite3.IntegrityError):
        store.commit_round(stored, record(1, lost=("a-0",)))
    assert [version.version for version in store.versions()] == [0]
    assert store.rounds() == []
    commit(store, 1)
    assert store.rounds() == [record(1)]


CRASH = """
import os, signal, sys
from pathlib import Path
import numpy as np
from metisfl.wire.layout import Layout
from metisfl_controller.rounds.termination.termination import Observed
from metisfl_controller.state.records import Contribution, RoundRecord
from metisfl_controller.state.store import Store
layout = Layout.of({"w": np.zeros(6, np.float32)})
store = Store(Path(sys.argv[1]), "uid-1", "digits")
store.commit_initial(layout, layout.pack({"w": np.full(6, 1, np.float32)}))
stored = store.write_model(1, layout, layout.pack({"w": np.full(6, 2, np.float32)}))
if sys.argv[2] == "in-transaction":
    database = store._database
    class Dies(dict):
        def items(self):
            os.kill(os.getpid(), signal.SIGKILL)
    store.commit_round(stored, RoundRecord(1, 1, 0, 1, 1, 0, 0, 0, 0, 0, Dies()))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["before-the-row", "in-transaction"])
def test_a_kill_before_the_commit_point_loses_the_round_and_nothing_else(tmp_path: Path, moment: str) -> None:
    killed = subprocess.run([sys.executable, "-c", CRASH, tmp_path, moment], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "models" / "v000001.safetensors").exists()
    layout = Layout.of({"w": np.zeros(6, np.float32)})
    store = Store(tmp_path, "uid-1", "digits")
    try:
        snapshot = store.snapshot()
        assert snapshot.incarnation == 2
        assert snapshot.latest is not None
        assert snapshot.latest.version == 0
        assert store.rounds() == []
        assert layout.views(store.read(snapshot.latest, layout))["w"].tolist() == [1] * 6
        # The round is run again and takes the place of the file that nobody committed.
        again = store.write_model(1, layout, layout.pack({"w": np.full(6, 3, np.float32)}))
        store.commit_round(again, record(1))
        assert layout.views(store.read(again, layout))["w"].tolist() == [3] * 6
    finally:
        store.close()


# ---- what is not believed


@pytest.mark.parametrize("name", ["../../outside", "{absolute}"])
def test_names_in_an_adopted_history_lead_nowhere(tmp_path: Path, name: str) -> None:
    """They may have come with an archive that somebody made up."""
    outside, state = tmp_path / "outside", tmp_path / "state"
    outside.write_text("years of work")
    with closing(Store(state, "uid-1", "digits", keep_versions=1, maker="Adam")) as store:
        store.commit_initial(LAYOUT, model())
        kept = store.write_rule_state(1, {"first": np.zeros(8, np.uint8)})
        store.commit_round(store.write_model(1, LAYOUT, model(1)), record(1), kept)
    with closing(sqlite3.connect(state / "history.sqlite")) as database, database:
        for table in ("versions", "rule_states"):
            database.execute(f"UPDATE {table} SET file = ?", (name.format(absolute=outside),))
    with closing(Store(state, "uid-2", "later", adopt=True, keep_versions=1, maker="Adam")) as store:
        (stored,) = store.stored()
        assert store.path(stored) == state / "models" / "v000001.safetensors"
        assert store.read_rule_state(stored)["first"].size == 8
        kept = store.write_rule_state(2, {"first": np.zeros(8, np.uint8)})
        store.commit_round(store.write_model(2, LAYOUT, model(2)), record(2), kept)
    assert outside.read_text() == "years of work"
    assert sorted(path.name for path in (state / "models").iterdir()) == [
        "v000002-rule.safetensors",
        "v000002.safetensors",
    ]


# ---- what is refused


def test_a_second_controller_is_locked_out(store: Store) -> None:
    with pytest.raises(StateError, match=r"another controller is running on .*: stop it first"):
        Store(store.directory, "uid-1", "digits")


def test_the_state_of_another_federation_is_refused(tmp_path: Path) -> None:
    Store(tmp_path, "uid-1", "digits").close()
    with pytest.raises(StateError, match=r"another federation \(uid uid-1, this one is uid-2\)"):
        Store(tmp_path, "uid-2", "digits")
    # And the lock of the refused one is let go.
    Store(tmp_path, "uid-1", "digits").close()


def test_the_state_of_another_federation_is_adopted_when_asked_and_gone_on_from(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "uid-1", "digits")) as store:
        store.commit_initial(LAYOUT, model())
        store.record_start(100.0)
        store.record_outcome(Outcome("Complete", "MaxRoundsReached", "done", 200.0, 0))
    with closing(Store(tmp_path, "uid-2", "later", adopt=True)) as store:
        found = store.snapshot()
        assert found.latest is not None
        assert (found.latest.version, found.layout, found.incarnation) == (0, LAYOUT, 2)
        # It has not ended, and its time begins anew.
        assert (found.outcome, found.started_at) == (None, None)
        store.record_outcome(Outcome("Complete", "MaxRoundsReached", "done", 300.0, 0))
    # It is this one's from now on: its end stays, and the one of before is foreign.
    with closing(Store(tmp_path, "uid-2", "later", adopt=True)) as store:
        assert store.snapshot().outcome is not None
    with pytest.raises(StateError, match="another federation"):
        Store(tmp_path, "uid-1", "digits")


def test_a_damaged_model_is_noticed(store: Store) -> None:
    stored = store.commit_initial(LAYOUT, model())
    content = bytearray(store.path(stored).read_bytes())
    content[-3] ^= 1
    store.path(stored).write_bytes(content)
    with pytest.raises(StateError, match=r"model version 0 cannot be read: v000000.safetensors is damaged"):
        store.read(stored, LAYOUT)


def test_a_missing_model_is_noticed(store: Store) -> None:
    stored = store.commit_initial(LAYOUT, model())
    store.path(stored).unlink()
    with pytest.raises(StateError, match="model version 0 cannot be read"):
        store.read(stored, LAYOUT)


def test_a_model_of_another_layout_is_noticed(store: Store) -> None:
    stored = store.commit_initial(LAYOUT, model())
    with pytest.raises(StateError, match="tensor 'w' is"):
        store.read(stored, Layout.of({**ARRAYS, "w": np.zeros(6, np.float32)}))


@pytest.mark.parametrize("content", [b"this is no database" * 100, None])
def test_a_history_that_is_no_database_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "history.sqlite"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(StateError, match=r"cannot use .*history\.sqlite"):
        Store(tmp_path, "uid-1", "digits")


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="cannot use the state directory"):
        Store(tmp_path / "state", "uid-1", "digits")

"""What an aggregation rule keeps is stored with the version that it belongs to, or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from metisfl_controller.state.records import StateError, StoredVersion
from metisfl_controller.state.rule_states import StoredState
from metisfl_controller.state.store import Store
from tests.unit.controller.test_store import LAYOUT, model, record

STATE = {"first": np.arange(100, dtype=np.uint8), "none": np.zeros(0, np.uint8)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "state", "uid-1", "digits")) as store:
        store.commit_initial(LAYOUT, model())
        yield store


def commit(store: Store, number: int, **changes: object) -> StoredVersion:
    state = store.write_rule_state(number, {"first": STATE["first"] + np.uint8(number), "none": STATE["none"]})
    stored = store.write_model(number, LAYOUT, model(number))
    store.commit_round(stored, record(number, **changes), state)
    return stored


def test_only_the_newest_versions_state_is_kept(store: Store) -> None:
    first, second = commit(store, 1), commit(store, 2)
    assert store.read_rule_state(first) == {}
    found = store.read_rule_state(second)
    assert {name: array.tolist() for name, array in found.items()} == {"first": list(range(2, 102)), "none": []}
    assert [path.name for path in (store.directory / "models").glob("*-rule.*")] == ["v000002-rule.safetensors"]
    assert load_file(store.directory / "models" / "v000002-rule.safetensors")["first"][0] == 2


def test_without_state_there_is_no_file(store: Store) -> None:
    assert store.write_rule_state(1, {}) is None
    assert list((store.directory / "models").glob("*-rule.*")) == []


def test_a_round_that_is_not_committed_leaves_the_state_before(store: Store) -> None:
    first = commit(store, 1)
    with pytest.raises(sqlite3.IntegrityError):
        commit(store, 2, lost=("a-0",))
    assert store.read_rule_state(first)["first"][0] == 1


def test_without_checkpoints_no_state_is_written(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "uid-1", "digits", checkpoints=False)) as store:
        assert store.write_rule_state(1, STATE) is None


def test_a_damaged_state_is_noticed(store: Store) -> None:
    stored = commit(store, 1)
    path = store.directory / "models" / "v000001-rule.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match=r"kept with model version 1 cannot be read: v000001-rule.* is damaged"):
        store.read_rule_state(stored)


@pytest.mark.parametrize(("before", "after"), [("Adam", "Yogi"), ("", ""), ("Adam", ""), ("", "Adam")])
def test_an_adopted_state_directory_brings_no_state_of_another_rule(tmp_path: Path, before: str, after: str) -> None:
    stored = ended(tmp_path, before)
    for _ in range(2):
        with closing(Store(tmp_path, "uid-2", "other", adopt=True, maker=after)) as store:
            assert store.read_rule_state(stored) == {}


def test_an_adopted_state_directory_brings_the_state_of_the_same_rule(tmp_path: Path) -> None:
    stored = ended(tmp_path, "Adam")
    with closing(Store(tmp_path, "uid-2", "other", adopt=True, maker="Adam")) as store:
        assert store.read_rule_state(stored)["first"][0] == 1


def test_an_adopted_state_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    ended(tmp_path, "Adam")
    (tmp_path / "models" / "v000001-rule.safetensors").unlink()
    with pytest.raises(StateError, match="v000001-rule"):
        Store(tmp_path, "uid-2", "other", adopt=True, maker="Adam")


def ended(directory: Path, maker: str) -> StoredVersion:
    """The newest version that another federation left, with a state that `maker` made."""
    with closing(Store(directory, "uid-1", "digits", maker=maker)) as store:
        store.commit_initial(LAYOUT, model())
        return commit(store, 1)


def test_what_is_stored_says_which_version_it_belongs_to(store: Store) -> None:
    state = store.write_rule_state(1, STATE)
    assert state is not None
    assert state == StoredState(1, state.sha256)
    assert state.file == "v000001-rule.safetensors"


def test_how_many_versions_are_kept_may_change(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "uid-1", "digits", keep_versions=2)) as store:
        store.commit_initial(LAYOUT, model())
        for number in (1, 2, 3):
            commit(store, number)
        assert [version.version for version in store.versions() if version.stored] == [2, 3]
        store.keep_versions = 4
        for number in (4, 5):
            commit(store, number)
        assert [version.version for version in store.versions() if version.stored] == [2, 3, 4, 5]

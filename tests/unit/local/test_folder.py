"""Which folders a run may write to."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import yaml

from metisfl.local.folder import RunFolder, RunFolderError
from metisfl.spec import Federation, load_federation, parse_federation
from tests.unit.archive.test_archive import CONTENTS, MANIFEST, archive
from tests.unit.local.samples import YAML


def federation(name: str = "digits") -> Federation:
    document = yaml.safe_load(YAML)
    document["metadata"]["name"] = name
    return parse_federation(document)


def test_a_new_folder_holds_the_federation_as_it_is_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "out")
    uid = folder.prepare(federation(), resume=False)
    written = load_federation(folder.federation)
    assert written.metadata.uid == uid
    assert written.spec == federation().spec
    assert folder.logs.is_dir()


def test_two_runs_have_different_uids(tmp_path: Path) -> None:
    uids = {RunFolder(tmp_path / name).prepare(federation(), resume=False) for name in "ab"}
    assert len(uids) == 2


def test_what_the_user_keeps_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="is not empty; name an empty or a new folder with --output"):
        RunFolder(tmp_path).prepare(federation(), resume=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RunFolderError, match="is not a folder"):
        RunFolder(tmp_path / "out").prepare(federation(), resume=False)


def test_an_unfinished_run_goes_on_with_its_uid(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    uid = folder.prepare(federation(), resume=False)
    with pytest.raises(RunFolderError, match="go on with it by --resume"):
        folder.prepare(federation(), resume=False)
    assert folder.prepare(federation(), resume=True) == uid


def test_a_run_that_failed_half_way_may_be_resumed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    uid = folder.prepare(federation(), resume=False)
    folder.summary.write_text('{"final": false}')
    assert folder.prepare(federation(), resume=True) == uid


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_has_ended_stays_as_it_is(tmp_path: Path, resume: bool) -> None:
    folder = RunFolder(tmp_path / "out")
    folder.prepare(federation(), resume=False)
    folder.summary.write_text('{"final": true}')
    with pytest.raises(RunFolderError, match="has ended"):
        folder.prepare(federation(), resume)


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run to resume"):
        RunFolder(tmp_path).prepare(federation(), resume=True)


def test_another_federations_run_is_not_resumed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    folder.prepare(federation("letters"), resume=False)
    with pytest.raises(RunFolderError, match="a run of federation 'letters', not of 'digits'"):
        folder.prepare(federation(), resume=True)


def test_source_files_cannot_leave_their_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    folder.prepare(federation(), resume=False)
    folder.write_source({"learner.py": "x = 1", "../../escape.py": "x = 2"})
    assert {entry.name for entry in folder.source.iterdir()} == {"learner.py", "escape.py"}
    assert not (tmp_path / "escape.py").exists()


def test_a_new_run_goes_on_from_an_archive(tmp_path: Path) -> None:
    file, folder = tmp_path / "digits.tar", RunFolder(tmp_path / "out")
    file.write_bytes(archive())
    uid = folder.prepare(federation(), resume=False, archive=file)
    assert load_federation(folder.federation).metadata.uid == uid
    assert folder.history.read_bytes() == CONTENTS["history.sqlite"]
    # Shares of groups that are not in this file stay taken; those of this one come after them.
    assert json.loads(folder.plan.read_text()) == {"count": 4, "offsets": {"a": 0, "b": 2, "silo-a": 3}}


def test_a_restore_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every retry would say that the folder is not empty."""
    file, folder = tmp_path / "digits.tar", RunFolder(tmp_path / "out")
    file.write_bytes(archive())

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as disk:
        disk.setattr("metisfl.local.folder.write_private", full)
        with pytest.raises(RunFolderError, match="api-token cannot be used: No space left"):
            folder.prepare(federation(), resume=False, archive=file)
    assert list(folder.root.iterdir()) == []
    folder.prepare(federation(), resume=False, archive=file)


def test_a_plan_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    file, folder = tmp_path / "digits.tar", RunFolder(tmp_path / "out")
    broken = MANIFEST.plan.model_copy(update={"sizes": {"a": 2}})
    file.write_bytes(archive(MANIFEST.model_copy(update={"plan": broken})))
    with pytest.raises(RunFolderError, match="plan: Value error, offsets and sizes must be of the same groups"):
        folder.prepare(federation(), resume=False, archive=file)
    assert list(folder.root.iterdir()) == []


def test_a_damaged_archive_starts_no_run(tmp_path: Path) -> None:
    file, folder = tmp_path / "digits.tar", RunFolder(tmp_path / "out")
    file.write_bytes(archive()[:-1])
    with pytest.raises(RunFolderError, match=r"digits\.tar cannot be gone on from: it ends early"):
        folder.prepare(federation(), resume=False, archive=file)
    assert list(folder.root.iterdir()) == []
    with pytest.raises(RunFolderError, match=r"nowhere\.tar cannot be used: No such file"):
        folder.prepare(federation(), resume=False, archive=tmp_path / "nowhere.tar")
    folder.prepare(federation(), resume=False)

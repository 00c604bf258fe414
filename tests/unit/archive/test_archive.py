"""The archive codec: what is written is read, other programs read it too, and whatever is wrong leaves nothing."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from metisfl.archive import ArchiveError, Manifest, Member, Plan, archive_bytes, unpack, verify, write
from metisfl.archive.reading import UNFINISHED

MODELS = {"models/v000006.safetensors": b"", "models/v000007.safetensors": bytes(range(256)) * 10}


def history(*statements: str) -> bytes:
    """A database as the controller exports it, as far as archives are concerned, and changed by some statements."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute("PRAGMA page_size = 512")
        database.execute("CREATE TABLE versions (version INTEGER PRIMARY KEY, file, sha256, stored)")
        database.execute("CREATE TABLE rule_states (version INTEGER PRIMARY KEY, file, sha256)")
        database.execute("INSERT INTO versions VALUES (5, 'v000005.safetensors', '', 0)")
        for number, content in zip((6, 7), MODELS.values(), strict=True):
            digest = hashlib.sha256(content).hexdigest()
            database.execute("INSERT INTO versions VALUES (?, ?, ?, 1)", (number, f"v{number:06}.safetensors", digest))
        for statement in statements:
            database.execute(statement)
        return database.serialize()


CONTENTS = {"history.sqlite": history(), **MODELS}


def member(name: str, content: bytes) -> Member:
    return Member(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


MANIFEST = Manifest(
    release="0.1",
    created=datetime(2026, 3, 1, tzinfo=UTC),
    federation="digits",
    uid="1f3c",
    version=7,
    plan=Plan(count=4, offsets={"a": 0, "b": 2}, sizes={"a": 2, "b": 1}),
    members=[member(*entry) for entry in CONTENTS.items()],
)


def archive(manifest: Manifest = MANIFEST) -> bytes:
    return b"".join(write(manifest, [io.BytesIO(content) for content in CONTENTS.values()]))


def telling(*statements: str) -> bytes:
    """An archive whose sums agree, with a history that was changed by some statements."""
    contents = {**CONTENTS, "history.sqlite": history(*statements)}
    changed = MANIFEST.model_copy(update={"members": [member(*entry) for entry in contents.items()]})
    return b"".join(write(changed, [io.BytesIO(content) for content in contents.values()]))


def tar(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    """As the standard library writes it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as file:
        for info, content in members:
            entry = tarfile.TarInfo(info) if isinstance(info, str) else info
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    # The standard library fills the file up to twenty blocks, tar's record of old.
    text = target.getvalue()
    size = sum(512 + -(-len(content) // 512) * 512 for _, content in members) + 1024
    return text[:size]


def document(**changes: Any) -> bytes:
    return json.dumps({**json.loads(MANIFEST.model_dump_json()), **changes}).encode()


def renamed(name: str) -> bytes:
    """An archive whose last member, in manifest and header, has this name."""
    *others, last = json.loads(MANIFEST.model_dump_json())["members"]
    text = document(members=[*others, {**last, "name": name}])
    names = [*list(CONTENTS)[:-1], name]
    return tar(("metisfl-archive.json", text), *zip(names, CONTENTS.values(), strict=True))


def linked() -> bytes:
    link = tarfile.TarInfo("history.sqlite")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return tar(("metisfl-archive.json", document()), (link, b""))


def flipped(position: int) -> bytes:
    whole = bytearray(archive())
    whole[position] ^= 1
    return bytes(whole)


def test_what_is_written_is_unpacked(tmp_path: Path) -> None:
    whole = archive()
    assert len(whole) == archive_bytes(MANIFEST)
    found = unpack(io.BytesIO(whole), tmp_path, hashlib.sha256(whole).hexdigest())
    assert found == MANIFEST
    (tmp_path / "archive").write_bytes(whole)
    assert verify(tmp_path / "archive") == (MANIFEST, hashlib.sha256(whole).hexdigest())
    (tmp_path / "archive").unlink()
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == CONTENTS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.sqlite", "models"]


def test_other_programs_read_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive()), mode="r:") as file:
        found = {info.name: file.extractfile(info).read() for info in file.getmembers()}  # type: ignore[union-attr]
    assert json.loads(found.pop("metisfl-archive.json"))["plan"] == {
        "count": 4,
        "offsets": {"a": 0, "b": 2},
        "sizes": {"a": 2, "b": 1},
    }
    assert found == CONTENTS


def test_a_model_may_be_larger_than_tar_was_made_for() -> None:
    large = Member(name="models/v000008.safetensors", bytes=20 << 30, sha256="0" * 64)
    manifest = MANIFEST.model_copy(update={"members": [MANIFEST.members[0], large]})
    assert archive_bytes(manifest) > 20 << 30
    pieces = write(manifest, [io.BytesIO(CONTENTS["history.sqlite"]), io.BytesIO()])
    # Header, content and padding of the two before it.
    *_, header = itertools.islice(pieces, 7)
    assert tarfile.TarInfo.frombuf(header, "ascii", "strict").size == 20 << 30


def test_a_byte_that_changed_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    for position in range(0, len(archive()), 53):
        refused(flipped(position), tmp_path)


def test_an_archive_that_was_cut_is_noticed_wherever_it_ends(tmp_path: Path) -> None:
    whole = archive()
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        assert "ends early" in refused(whole[:size], tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(lambda: b"\x50\x4b\x03\x04" + bytes(5000), "or no archive", id="zip"),
        pytest.param(lambda: tar(("notes.txt", b"x" * 900)), "'notes.txt' is there", id="another tar"),
        pytest.param(
            lambda: tar(("metisfl-archive.json", document(format=2))),
            "its format is 2, and this release reads 1",
            id="2",
        ),
        pytest.param(lambda: tar(("metisfl-archive.json", b"{}")), "format: Field required", id="no format"),
        pytest.param(lambda: tar(("metisfl-archive.json", document(extra=1))), "extra: ", id="extra"),
        pytest.param(lambda: tar(("metisfl-archive.json", document(members=[]))), "history.sqlite once", id="empty"),
        pytest.param(lambda: renamed("../outside"), "members.2.name", id="parent"),
        pytest.param(lambda: renamed("/etc/outside"), "members.2.name", id="absolute"),
        pytest.param(lambda: renamed("models/../../outside"), "members.2.name", id="in between"),
        pytest.param(lambda: renamed("models/v000007.safetensors\n"), "members.2.name", id="newline"),
        pytest.param(lambda: renamed("models/v000006.safetensors"), "history.sqlite once", id="twice"),
        pytest.param(linked, "'history.sqlite' is there", id="link"),
        pytest.param(
            lambda: tar(("metisfl-archive.json", document(plan={"count": 4, "offsets": {"a": 0}, "sizes": {}}))),
            "plan: Value error, offsets and sizes must be of the same groups",
            id="plan",
        ),
        pytest.param(lambda: archive() + b"more", "holds more", id="more"),
    ],
)
def test_what_is_no_archive_is_told(tmp_path: Path, content: Callable[[], bytes], told: str) -> None:
    assert told in refused(content(), tmp_path)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE versions SET file = '/etc/passwd' WHERE version = 6", "names file '/etc/passwd' for version 6"),
        (
            "UPDATE versions SET file = '../v000006.safetensors' WHERE version = 6",
            "names file '../v000006.safetensors'",
        ),
        ("UPDATE versions SET file = 'v000007.safetensors' WHERE version = 6", "names file 'v000007.safetensors'"),
        ("INSERT INTO rule_states VALUES (7, '../../x', '')", "names file '../../x' for version 7"),
        (
            "INSERT INTO rule_states VALUES (7, 'v000007-rule.safetensors', '')",
            "history.sqlite names models/v000007-rule.safetensors, which is not in it",
        ),
        ("UPDATE versions SET stored = 1", "history.sqlite names models/v000005.safetensors, which is not in it"),
        ("DELETE FROM versions WHERE version = 6", "v000006.safetensors is in it, and history.sqlite does not name it"),
        ("UPDATE versions SET sha256 = 'ab' WHERE version = 6", "v000006.safetensors has another SHA-256 in"),
        ("CREATE TRIGGER t AFTER INSERT ON versions BEGIN DELETE FROM rule_states; END", "holds trigger 't'"),
        ("CREATE VIEW audit AS SELECT 1", "holds view 'audit'"),
        ("CREATE VIRTUAL TABLE search USING fts5(text)", "holds virtual table 'search'"),
        ("DROP TABLE rule_states", "cannot be read: no such table: rule_states"),
    ],
)
def test_a_history_of_other_files_than_the_archives_is_refused(tmp_path: Path, statement: str, told: str) -> None:
    assert told in refused(telling(statement), tmp_path)


def test_a_version_that_is_no_number_is_refused(tmp_path: Path) -> None:
    told = refused(
        telling(
            "DROP TABLE versions",
            "CREATE TABLE versions (version, file, sha256, stored)",
            "INSERT INTO versions VALUES ('../../x', '../../x', '', 1)",
        ),
        tmp_path,
    )
    assert "names file '../../x' for version '../../x'" in told


def test_another_archive_than_the_expected_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="SHA-256"):
        unpack(io.BytesIO(archive()), tmp_path, "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(ArchiveError, match="holds the state of a federation already"):
        unpack(io.BytesIO(archive()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_what_an_attempt_before_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED / "models").mkdir(parents=True)
    (tmp_path / UNFINISHED / "history.sqlite").write_bytes(b"half")
    unpack(io.BytesIO(archive()), tmp_path)
    assert (tmp_path / "history.sqlite").read_bytes() == CONTENTS["history.sqlite"]


def test_a_file_that_shrank_while_it_was_written_is_told() -> None:
    short = [io.BytesIO(content[:-1]) for content in CONTENTS.values()]
    with pytest.raises(ArchiveError, match=r"history\.sqlite ends 1 bytes early"):
        list(write(MANIFEST, short))


def refused(content: bytes, directory: Path) -> str:
    """Why; `verify` and `unpack` say the same, and neither leaves anything."""
    folder = directory / "state"
    folder.mkdir(exist_ok=True)
    with pytest.raises(ArchiveError) as unpacking:
        unpack(io.BytesIO(content), folder)
    assert list(folder.iterdir()) == []
    (directory / "archive").write_bytes(content)
    with pytest.raises(ArchiveError) as verifying:
        verify(directory / "archive")
    assert str(verifying.value) == str(unpacking.value)
    return str(verifying.value)

"""What an archive's database says of its files. Anybody may have made it: nothing of it is believed, or run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from metisfl.archive.manifest import HISTORY, MODELS, ArchiveError, Manifest, model_file, rule_state_file


def check_history(path: Path, manifest: Manifest) -> None:
    """Compare the files that the history names with the members of the archive.

    Raises ArchiveError when they are not the same, when a file's name is not that of its version, or when the database
    holds more than tables and their indexes.
    """
    # As it is in the archive: without a journal, and never written.
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            _refuse_programs(database)
            named = dict(_named(database))
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ArchiveError(f"{HISTORY} cannot be read: {error}") from error
    members = {member.name: member.sha256 for member in manifest.members if member.name != HISTORY}
    for name in sorted(named.keys() | members.keys()):
        if name not in members:
            raise ArchiveError(f"{HISTORY} names {name}, which is not in it")
        if name not in named:
            raise ArchiveError(f"{name} is in it, and {HISTORY} does not name it")
        if named[name] != members[name]:
            raise ArchiveError(f"{name} has another SHA-256 in {HISTORY} than in its manifest")


def _refuse_programs(database: sqlite3.Connection) -> None:
    """Triggers would run whenever the controller writes, views and virtual tables when it reads."""
    for kind, name, statement in database.execute("SELECT type, name, sql FROM sqlite_master"):
        virtual = str(statement or "").lstrip().upper().startswith("CREATE VIRTUAL")
        if kind not in ("table", "index") or virtual:
            raise ArchiveError(f"{HISTORY} holds {'virtual ' if virtual else ''}{kind} {name!r}, and no export does")


def _named(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Name in the archive and SHA-256 of each file."""
    for query, name_of in (
        ("SELECT version, file, sha256 FROM versions WHERE stored", model_file),
        ("SELECT version, file, sha256 FROM rule_states", rule_state_file),
    ):
        for version, file, sha256 in database.execute(query):
            if not isinstance(version, int) or file != name_of(version):
                raise ArchiveError(f"{HISTORY} names file {file!r} for version {version!r}")
            yield f"{MODELS}/{file}", sha256

"""What an aggregation rule keeps from round to round, such as an optimiser's moments; stored with the version."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metisfl.archive.manifest import rule_state_file
from metisfl.wire.layout import Buffer, aligned_zeros
from metisfl_controller.state.models import Allocate, read_buffers, read_metadata, write_tensors


@dataclass(frozen=True)
class StoredState:
    """A file that was written and synced; it counts once its version is committed."""

    version: int
    sha256: str

    @property
    def file(self) -> str:
        """Its name, of its number as a model's."""
        return rule_state_file(self.version)


_MAKER = "metisfl.maker"


def maker_of(path: Path) -> str:
    """What made a state that another federation may go on from; empty when none may. Raises OSError or ValueError."""
    return read_metadata(path).get(_MAKER, "")


class RuleStates:
    """Rows of `rule_states` and their files, of the store's database and its models' directory.

    Only the newest version's state is kept: it is what a controller that starts again goes on from. `maker` says what
    makes states that another federation may go on from, if the same makes its own; empty: these are nobody else's.
    """

    def __init__(self, database: sqlite3.Connection, directory: Path, maker: str = "") -> None:
        self._database = database
        self._directory = directory
        self._maker = maker

    def write(self, version: int, state: Mapping[str, Buffer]) -> StoredState:
        """Raises OSError."""
        metadata = {"metisfl.version": str(version), **({_MAKER: self._maker} if self._maker else {})}
        sha256, _ = write_tensors(self._directory / rule_state_file(version), state, metadata)
        return StoredState(version, sha256)

    def insert(self, stored: StoredState) -> None:
        """Part of the transaction that commits the version."""
        self._database.execute(
            "INSERT INTO rule_states (version, file, sha256) VALUES (?, ?, ?)",
            (stored.version, stored.file, stored.sha256),
        )

    def read(self, version: int, allocate: Allocate = aligned_zeros) -> dict[str, Buffer]:
        """The state that belongs to a version, empty if there is none. Raises OSError or ValueError."""
        row = self._database.execute("SELECT sha256 FROM rule_states WHERE version = ?", (version,)).fetchone()
        return {} if row is None else read_buffers(self._directory / rule_state_file(version), row[0], allocate)

    def adopt(self) -> None:
        """These were another federation's: forget those that the same did not make. Raises OSError or ValueError."""
        files = [rule_state_file(version) for (version,) in self._database.execute("SELECT version FROM rule_states")]
        if not self._maker or any(maker_of(self._directory / file) != self._maker for file in files):
            self._database.execute("DELETE FROM rule_states")

    def prune(self) -> None:
        """Remove all but the newest."""
        outdated = self._database.execute(
            "SELECT version FROM rule_states WHERE version < (SELECT max(version) FROM rule_states)"
        ).fetchall()
        for (version,) in outdated:
            with suppress(FileNotFoundError):
                (self._directory / rule_state_file(version)).unlink()
            self._database.execute("DELETE FROM rule_states WHERE version = ?", (version,))

"""The state directory: `history.sqlite`, `models/`, and a lock that keeps a second controller out.

A version is committed when its row is: the model file was synced under its final name before, so whatever moment the
controller dies at, the newest row names a whole file. All methods block; call them from one thread at a time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from metisfl.archive.manifest import model_file
from metisfl.archive.reading import UNFINISHED
from metisfl.proto.v1 import model_pb2
from metisfl.spec.termination import MetricSource
from metisfl.wire.layout import Buffer, Layout, aligned_zeros
from metisfl_controller.rounds.evaluation import Mean
from metisfl_controller.rounds.termination.termination import Observed
from metisfl_controller.state.history import RoundHistory
from metisfl_controller.state.models import Allocate, read_model, write_model
from metisfl_controller.state.records import Outcome, RoundRecord, Snapshot, StateError, StoredVersion
from metisfl_controller.state.rule_states import RuleStates, StoredState


class Store:
    """Opens the directory for one federation. Raises StateError when it is in use, foreign or unwritable.

    Without `checkpoints`, versions after the initial one get no file and nothing is synced: a controller that starts
    again begins at version 0. Benchmarks use that to time the rest of a round.

    With `adopt`, the state of another federation becomes this one's: its models and history are gone on from, and if
    it had ended, that is no more. What its aggregation rule kept is forgotten, unless `maker` made it (`RuleStates`).

    The files of the newest `keep_versions` versions are kept; a change of it holds from the next commit on.
    """

    def __init__(
        self,
        directory: Path,
        uid: str,
        name: str,
        checkpoints: bool = True,
        adopt: bool = False,
        keep_versions: int = 3,
        maker: str = "",
    ) -> None:
        self.directory = directory
        self.keep_versions = keep_versions
        self._checkpoints = checkpoints
        if (directory / UNFINISHED).exists():
            raise StateError(
                f"an archive was not unpacked to its end in {directory}: restore it again, into another place"
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "models").mkdir(exist_ok=True)
            self._lock = _lock(directory / "lock")
        except OSError as error:
            raise StateError(f"cannot use the state directory {directory}: {error}") from error
        try:
            self._open(maker)
            self._start(uid, name, adopt)
        except (sqlite3.Error, OSError, ValueError) as error:
            os.close(self._lock)
            raise StateError(f"cannot use {directory / 'history.sqlite'}: {error}") from error
        except StateError:
            self.close()
            raise

    def _open(self, maker: str) -> None:
        self._database = sqlite3.connect(
            self.directory / "history.sqlite", isolation_level=None, check_same_thread=False, timeout=10
        )
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA trusted_schema = OFF")
        self._database.execute("PRAGMA journal_mode = DELETE")
        self._database.execute(f"PRAGMA synchronous = {'FULL' if self._checkpoints else 'OFF'}")
        self._database.executescript(files(__package__).joinpath("schema.sql").read_text())
        self._rule_states = RuleStates(self._database, self.directory / "models", maker)
        self._history = RoundHistory(self._database)

    def _start(self, uid: str, name: str, adopt: bool) -> None:
        row = self._one("SELECT uid FROM federation")
        foreign = row is not None and row[0] != uid
        if row is not None and foreign and not adopt:
            raise StateError(
                f"{self.directory} holds another federation (uid {row[0]}, this one is {uid}): use an empty directory"
            )
        with self._transaction():
            if foreign:
                self._database.execute(
                    "UPDATE federation SET uid = ?, name = ?, started_at = NULL, state = '', reason = '', "
                    "message = '', completed_at = NULL, published_version = NULL",
                    (uid, name),
                )
                self._rule_states.adopt()
            self._database.execute(
                "INSERT INTO federation (id, uid, name, incarnation) VALUES (1, ?, ?, 1) "
                "ON CONFLICT (id) DO UPDATE SET incarnation = incarnation + 1",
                (uid, name),
            )
            # Without checkpoints, rounds were recorded whose version cannot be read any more.
            last = "(SELECT max(version) FROM versions WHERE stored)"
            for table in (
                "tasks WHERE version",
                "participants WHERE round",
                "rounds WHERE version",
                "evaluations WHERE version",
            ):
                self._database.execute(f"DELETE FROM {table} > {last}")
            self._database.execute(f"DELETE FROM rule_states WHERE version > {last}")
            self._database.execute(f"DELETE FROM versions WHERE version > {last}")

    def close(self) -> None:
        self._database.close()
        os.close(self._lock)

    # ---- reading

    def snapshot(self) -> Snapshot:
        row = self._one(
            "SELECT incarnation, layout, started_at, state, reason, message, completed_at, published_version "
            "FROM federation"
        )
        assert row is not None
        incarnation, layout, started_at, state, reason, message, completed_at, published = row
        latest = self._one("SELECT max(version) FROM versions")
        return Snapshot(
            incarnation=incarnation,
            layout=Layout.from_proto(model_pb2.Layout.FromString(layout)) if layout else None,
            latest=self.version(latest[0]) if latest and latest[0] is not None else None,
            started_at=started_at,
            outcome=Outcome(state, reason, message, completed_at, published) if state else None,
        )

    def versions(self) -> list[StoredVersion]:
        """All committed versions, oldest first; `stored` says whether the file is still kept."""
        return self._versions("ORDER BY version")

    def stored(self) -> list[StoredVersion]:
        """Those whose file is kept, oldest first."""
        return self._versions("WHERE stored ORDER BY version")

    def version(self, number: int) -> StoredVersion | None:
        return next(iter(self._versions("WHERE version = ?", number)), None)

    def metrics(self, source: MetricSource = MetricSource.LEARNERS) -> dict[int, dict[str, Mean]]:
        """Metrics of every evaluated version, of learners or of evaluators."""
        return self._history.metrics(source)

    def observed(self, before: int) -> list[Observed]:
        """Conclusive metrics of the versions before this one, oldest first."""
        return self._history.observed(before)

    def rounds(self, after: int = 0, limit: int | None = None) -> list[RoundRecord]:
        """Committed rounds with higher numbers than `after`, oldest first; all of them, or at most `limit`."""
        return self._history.rounds(after, limit)

    def tasks_after(self, version: int) -> list[str]:
        """Ids of the tasks whose results are in later versions than this."""
        return self._history.tasks_after(version)

    def read(self, version: StoredVersion, layout: Layout, allocate: Allocate = aligned_zeros) -> Buffer:
        """A stored version as a flat buffer. Raises StateError."""
        try:
            return read_model(self.path(version), layout, version.sha256, allocate)
        except (OSError, ValueError) as error:
            raise StateError(f"model version {version.version} cannot be read: {error}") from error

    def read_rule_state(self, version: StoredVersion, allocate: Allocate = aligned_zeros) -> dict[str, Buffer]:
        """What the aggregation rule kept with a version, empty if it kept nothing. Raises StateError."""
        try:
            return self._rule_states.read(version.version, allocate)
        except (OSError, ValueError) as error:
            raise StateError(
                f"what the aggregation rule kept with model version {version.version} cannot be read: {error}"
            ) from error

    def copy_history(self, target: Path) -> None:
        """A copy of the database as it is now. Raises StateError."""
        try:
            self._database.execute("VACUUM INTO ?", (str(target),))
        except sqlite3.Error as error:
            raise StateError(f"cannot copy {self.directory / 'history.sqlite'}: {error}") from error

    def path(self, version: StoredVersion) -> Path:
        return self.directory / "models" / version.file

    # ---- writing

    def commit_initial(self, layout: Layout, model: Buffer) -> StoredVersion:
        """Version 0 and the layout of all versions."""
        stored = self._write(0, layout, model)
        with self._transaction():
            self._database.execute("UPDATE federation SET layout = ?", (layout.to_proto().SerializeToString(),))
            self._insert_version(stored)
        return stored

    def write_model(self, version: int, layout: Layout, model: Buffer) -> StoredVersion:
        """The file of a version that is about to be committed."""
        if not self._checkpoints:
            return StoredVersion(version, "", 0, time.time(), False)
        return self._write(version, layout, model)

    def write_rule_state(self, version: int, state: Mapping[str, Buffer]) -> StoredState | None:
        """The file of what the aggregation rule keeps with a version that is about to be committed, if anything."""
        return self._rule_states.write(version, state) if state and self._checkpoints else None

    def commit_round(
        self,
        stored: StoredVersion,
        record: RoundRecord,
        state: StoredState | None = None,
        keep: Set[int] = frozenset(),
    ) -> None:
        """The round, its version and the rule's state, in one transaction; then files are removed, but for the last
        versions and those in `keep`."""
        with self._transaction():
            self._insert_version(stored)
            if state is not None:
                self._rule_states.insert(state)
            self._history.insert(record)
        self._prune(keep)

    def record_start(self, started_at: float) -> None:
        """The moment the first round began; later calls change nothing."""
        self._database.execute("UPDATE federation SET started_at = coalesce(started_at, ?)", (started_at,))

    def record_metrics(
        self,
        version: int,
        means: Mapping[str, Mean],
        source: MetricSource = MetricSource.LEARNERS,
        conclusive: bool = True,
    ) -> None:
        with self._transaction():
            self._history.insert_metrics(version, means, source, conclusive)

    def record_outcome(self, outcome: Outcome) -> None:
        self._database.execute(
            "UPDATE federation SET state = ?, reason = ?, message = ?, completed_at = ?, published_version = ?",
            (outcome.state, outcome.reason, outcome.message, outcome.completed_at, outcome.published_version),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All statements of the block, or none of them."""
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            yield

    def _write(self, version: int, layout: Layout, model: Buffer) -> StoredVersion:
        metadata = {"metisfl.version": str(version), "metisfl.layout": layout.digest}
        sha256, size = write_model(self.directory / "models" / model_file(version), layout, model, metadata)
        return StoredVersion(version, sha256, size, time.time(), True)

    def _versions(self, which: str, *values: object) -> list[StoredVersion]:
        rows = self._database.execute(
            f"SELECT version, sha256, bytes, created_at, stored FROM versions {which}", values
        )
        return [StoredVersion(**{**dict(row), "stored": bool(row["stored"])}) for row in rows]

    def _insert_version(self, stored: StoredVersion) -> None:
        self._database.execute(
            "INSERT INTO versions (version, file, sha256, bytes, created_at, stored) VALUES (?, ?, ?, ?, ?, ?)",
            (stored.version, stored.file, stored.sha256, stored.bytes, stored.created_at, stored.stored),
        )

    def _prune(self, keep: Set[int]) -> None:
        self._rule_states.prune()
        stored = self._database.execute("SELECT version FROM versions WHERE stored ORDER BY version").fetchall()
        for (version,) in stored[: -self.keep_versions]:
            if version not in keep:
                with suppress(FileNotFoundError):
                    (self.directory / "models" / model_file(version)).unlink()
                self._database.execute("UPDATE versions SET stored = 0 WHERE version = ?", (version,))

    def _one(self, query: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._database.execute(query).fetchone()
        return row


def _lock(path: Path) -> int:
    """An exclusive lock for the life of this process. Raises StateError when another controller holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StateError(f"another controller is running on {path.parent}: stop it first") from error
    return descriptor

"""What security keeps in `history.sqlite`: issued certificates, and the audit trail.

On a connection of its own: a certificate must not wait until a large model is on the disk. All methods block, and raise
StateError when the disk fails.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path

from metisfl_controller.security.audit import AuditEntry
from metisfl_controller.security.ledger import Issued
from metisfl_controller.state.records import StateError

KEEP_AUDIT_ENTRIES = 10_000

_COLUMNS = [field.name for field in fields(Issued)]
# Some of the names are words of SQL.
_QUOTED = ", ".join(f'"{name}"' for name in _COLUMNS)
_INSERT = f"INSERT OR REPLACE INTO certificates ({_QUOTED}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"


class SecurityStore:
    """Opened once the state directory belongs to this process (`Store`). Raises StateError."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(directory / "history.sqlite", check_same_thread=False, timeout=20)
            self._database.row_factory = sqlite3.Row
            self._database.executescript(files(__package__).joinpath("security.sql").read_text())
        except sqlite3.Error as error:
            raise StateError(f"cannot use {directory / 'history.sqlite'}: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock, self._database:
                yield self._database
        except sqlite3.Error as error:
            raise StateError(f"history.sqlite: {error}") from error

    def certificates(self, now: float) -> list[Issued]:
        """Those that have not expired; the others are forgotten."""
        with self._transaction() as database:
            database.execute("DELETE FROM certificates WHERE expires_at <= ?", (now,))
            return [Issued(**dict(row)) for row in database.execute("SELECT * FROM certificates")]

    def keep(self, issued: Iterable[Issued]) -> None:
        """Certificates as they are now; durable when this returns."""
        with self._transaction() as database:
            database.executemany(_INSERT, [asdict(entry) for entry in issued])

    def record(self, entries: Iterable[AuditEntry]) -> None:
        """Add to the trail, which keeps its newest entries."""
        with self._transaction() as database:
            database.executemany(
                "INSERT INTO audit (at, action, learner, peer, detail) VALUES (:at, :action, :learner, :peer, :detail)",
                [asdict(entry) for entry in entries],
            )
            database.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (KEEP_AUDIT_ENTRIES,))

    def audit(self, limit: int) -> list[AuditEntry]:
        """The newest entries, newest first."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT at, action, learner, peer, detail FROM audit ORDER BY id DESC LIMIT ?", (limit,)
            )
            return [AuditEntry(**dict(row)) for row in rows]

"""A federation's committed state, as an archive that another controller goes on from.

Global models and the history are in it, and what a server optimiser keeps. What learners sent is not, nor what the
aggregation rule keeps of single learners; nor keys, certificates or tokens.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import metisfl
from metisfl.archive import Manifest, Member, Plan, archive_bytes, write
from metisfl.archive.manifest import HISTORY, MODELS
from metisfl.partitions import Shares
from metisfl.spec import FederationSpec
from metisfl_controller.partitions import PartitionPlan
from metisfl_controller.state.records import StateError
from metisfl_controller.state.rule_states import StoredState, maker_of
from metisfl_controller.state.store import Store

_COPY = "export.sqlite"


@dataclass(frozen=True)
class Export:
    """Files that are open, and so stay whatever is removed meanwhile. Read it once, or close it."""

    manifest: Manifest
    files: Sequence[BinaryIO]

    @property
    def size(self) -> int:
        """Of the archive in bytes."""
        return archive_bytes(self.manifest)

    def content(self) -> Iterator[bytes]:
        """The archive in pieces. Raises OSError or ArchiveError."""
        with closing(self):
            yield from write(self.manifest, self.files)

    def close(self) -> None:
        for file in self.files:
            file.close()


def export(store: Store, federation: str, uid: str, plan: Plan) -> Export:
    """All versions that are kept, and the history up to the newest. Raises StateError when there is none."""
    stored = store.stored()
    if not stored:
        raise StateError("no model version has been committed yet, so there is nothing to export")
    copy = store.directory / _COPY
    with ExitStack() as undo:
        try:
            copy.unlink(missing_ok=True)
            store.copy_history(copy)
            states = _leave_out(copy, store.directory / MODELS)
            history = undo.enter_context(copy.open("rb"))
            kept = [(v.file, v.sha256) for v in stored] + [(state.file, state.sha256) for state in states]
            files = [undo.enter_context((store.directory / MODELS / file).open("rb")) for file, _ in kept]
            members = [_member(HISTORY, history, hashlib.file_digest(history, "sha256").hexdigest())]
            history.seek(0)
        except (OSError, ValueError, sqlite3.Error) as error:
            raise StateError(f"the state cannot be exported: {error}") from error
        finally:
            copy.unlink(missing_ok=True)
        members += [_member(f"{MODELS}/{name}", file, sha) for (name, sha), file in zip(kept, files, strict=True)]
        manifest = Manifest(
            release=metisfl.__version__,
            created=datetime.now(UTC),
            federation=federation,
            uid=uid,
            version=stored[-1].version,
            plan=plan,
            members=members,
        )
        undo.pop_all()
    return Export(manifest, [history, *files])


def plan_of(plan: PartitionPlan, spec: FederationSpec, learners: Iterable[str]) -> Plan:
    """With as many shares for each group as it has learners now, or as have ever taken part (`learners`, their ids)."""
    known = (group for group in spec.training_groups if group.name in plan.offsets)
    sizes = dict(Shares(plan.count, plan.offsets, dict.fromkeys(plan.offsets, 0)).extended(known).sizes)
    for learner in learners:
        group, _, ordinal = learner.rpartition("-")
        if group in sizes:
            sizes[group] = max(sizes[group], int(ordinal) + 1)
    return Plan(count=plan.count, offsets=plan.offsets, sizes=sizes)


def _member(name: str, file: BinaryIO, sha256: str) -> Member:
    return Member(name=name, bytes=os.fstat(file.fileno()).st_size, sha256=sha256)


def _leave_out(copy: Path, models: Path) -> list[StoredState]:
    """Certificates are those of a root that stays behind, and states of rules may be about learners that do; answers
    those that are not.

    What is deleted is not in the file any more, nor between its pages.
    """
    with closing(sqlite3.connect(copy, isolation_level=None)) as database:
        states = [StoredState(*row) for row in database.execute("SELECT version, sha256 FROM rule_states")]
        going = [state for state in states if maker_of(models / state.file)]
        database.execute("DROP TABLE IF EXISTS certificates")
        staying = [(state.version,) for state in states if state not in going]
        database.executemany("DELETE FROM rule_states WHERE version = ?", staying)
        database.execute("VACUUM")
    return going

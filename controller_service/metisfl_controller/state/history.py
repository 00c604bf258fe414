"""What happened in each round, and how good each version was: rows of the store's database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from metisfl.spec.termination import MetricSource
from metisfl_controller.rounds.evaluation import Mean
from metisfl_controller.rounds.termination.termination import Observed
from metisfl_controller.state.records import Contribution, RoundRecord


class RoundHistory:
    """The tables `rounds`, `participants`, `tasks` and `evaluations`. Inserting is part of the caller's transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def metrics(self, source: MetricSource = MetricSource.LEARNERS) -> dict[int, dict[str, Mean]]:
        """Metrics of every evaluated version, of learners or of evaluators."""
        found: dict[int, dict[str, Mean]] = {}
        for version, name, value, examples in self._database.execute(
            "SELECT version, name, value, examples FROM evaluations WHERE source = ? ORDER BY version, name", (source,)
        ):
            found.setdefault(version, {})[name] = Mean(value, examples)
        return found

    def observed(self, before: int) -> list[Observed]:
        """Conclusive metrics of the versions before this one, oldest first."""
        found: dict[tuple[int, MetricSource], dict[str, float]] = {}
        for version, source, name, value in self._database.execute(
            "SELECT version, source, name, value FROM evaluations WHERE conclusive AND version < ? ORDER BY version",
            (before,),
        ):
            found.setdefault((version, MetricSource(source)), {})[name] = value
        return [Observed(source, version, values) for (version, source), values in found.items()]

    def rounds(self, after: int = 0, limit: int | None = None) -> list[RoundRecord]:
        """Committed rounds with higher numbers than `after`, oldest first; all of them, or at most `limit`."""
        rows = self._database.execute(
            "SELECT number, version, started_at, ended_at, attempts, train_seconds, aggregate_seconds, commit_seconds, "
            "bytes_received, bytes_sent FROM rounds WHERE number > ? ORDER BY number LIMIT ?",
            (after, -1 if limit is None else limit),
        ).fetchall()
        if not rows:
            return []
        contributed: dict[int, dict[str, Contribution]] = {}
        lost: dict[int, list[str]] = {}
        for number, learner, standing, examples, batches, seconds, metrics in self._database.execute(
            "SELECT round, learner, standing, examples, batches, seconds, metrics FROM participants "
            "WHERE round BETWEEN ? AND ? ORDER BY learner",
            (rows[0]["number"], rows[-1]["number"]),
        ):
            if standing == "contributed":
                contribution = Contribution(examples, batches, seconds, json.loads(metrics))
                contributed.setdefault(number, {})[learner] = contribution
            else:
                lost.setdefault(number, []).append(learner)
        tasks: dict[int, list[str]] = {}
        for task, version in self._database.execute(
            "SELECT id, version FROM tasks WHERE version BETWEEN ? AND ? ORDER BY version, id",
            (rows[0]["version"], rows[-1]["version"]),
        ):
            tasks.setdefault(version, []).append(task)
        return [
            RoundRecord(
                **dict(row),
                contributed=contributed.get(row["number"], {}),
                lost=tuple(lost.get(row["number"], ())),
                tasks=tuple(tasks.get(row["version"], ())),
            )
            for row in rows
        ]

    def tasks_after(self, version: int) -> list[str]:
        """Ids of the tasks whose results are in later versions than this."""
        return [row[0] for row in self._database.execute("SELECT id FROM tasks WHERE version > ?", (version,))]

    def insert(self, record: RoundRecord) -> None:
        """A round that is committed with its version."""
        self._database.execute(
            "INSERT INTO rounds (number, version, started_at, ended_at, attempts, train_seconds, "
            "aggregate_seconds, commit_seconds, bytes_received, bytes_sent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.number,
                record.version,
                record.started_at,
                record.ended_at,
                record.attempts,
                record.train_seconds,
                record.aggregate_seconds,
                record.commit_seconds,
                record.bytes_received,
                record.bytes_sent,
            ),
        )
        self._database.executemany(
            "INSERT INTO participants (round, learner, standing, examples, batches, seconds, metrics) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                *(
                    (record.number, learner, "contributed", c.examples, c.batches, c.seconds, json.dumps(c.metrics))
                    for learner, c in record.contributed.items()
                ),
                *((record.number, learner, "lost", 0, 0, 0.0, "{}") for learner in record.lost),
            ],
        )
        self._database.executemany(
            "INSERT INTO tasks (id, version) VALUES (?, ?)", [(task, record.version) for task in record.tasks]
        )

    def insert_metrics(self, version: int, means: Mapping[str, Mean], source: MetricSource, conclusive: bool) -> None:
        """In the place of what was known of this version from this source by the same names."""
        self._database.executemany(
            "INSERT OR REPLACE INTO evaluations (version, source, name, value, examples, conclusive) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [(version, source, name, mean.value, mean.examples, conclusive) for name, mean in means.items()],
        )

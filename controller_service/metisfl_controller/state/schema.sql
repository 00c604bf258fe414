-- One row of `federation` for ever; a row of `versions` is the commit point of a model.
CREATE TABLE IF NOT EXISTS federation (
  id                INTEGER PRIMARY KEY CHECK (id = 1),
  uid               TEXT NOT NULL,
  name              TEXT NOT NULL,
  incarnation       INTEGER NOT NULL,
  layout            BLOB,
  started_at        REAL,
  state             TEXT NOT NULL DEFAULT '',
  reason            TEXT NOT NULL DEFAULT '',
  message           TEXT NOT NULL DEFAULT '',
  completed_at      REAL,
  published_version INTEGER
);

CREATE TABLE IF NOT EXISTS versions (
  version    INTEGER PRIMARY KEY,
  file       TEXT NOT NULL,
  sha256     TEXT NOT NULL,
  bytes      INTEGER NOT NULL,
  created_at REAL NOT NULL,
  stored     INTEGER NOT NULL DEFAULT 1
);

-- What the aggregation rule keeps with the newest version.
CREATE TABLE IF NOT EXISTS rule_states (
  version INTEGER PRIMARY KEY REFERENCES versions (version),
  file    TEXT NOT NULL,
  sha256  TEXT NOT NULL
);

-- Times are seconds since the epoch, UTC.
CREATE TABLE IF NOT EXISTS rounds (
  number            INTEGER PRIMARY KEY,
  version           INTEGER NOT NULL REFERENCES versions (version),
  started_at        REAL NOT NULL,
  ended_at          REAL NOT NULL,
  attempts          INTEGER NOT NULL,
  train_seconds     REAL NOT NULL,
  aggregate_seconds REAL NOT NULL,
  commit_seconds    REAL NOT NULL,
  bytes_received    INTEGER NOT NULL,
  bytes_sent        INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS participants (
  round    INTEGER NOT NULL REFERENCES rounds (number),
  learner  TEXT NOT NULL,
  standing TEXT NOT NULL CHECK (standing IN ('contributed', 'lost')),
  examples INTEGER NOT NULL DEFAULT 0,
  batches  INTEGER NOT NULL DEFAULT 0,
  seconds  REAL NOT NULL DEFAULT 0,
  metrics  TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (round, learner)
);

-- What is in a version: a learner may have several parts in one of protocol Asynchronous.
CREATE TABLE IF NOT EXISTS tasks (
  id      TEXT PRIMARY KEY,
  version INTEGER NOT NULL REFERENCES versions (version)
);

CREATE INDEX IF NOT EXISTS tasks_by_version ON tasks (version);

-- Metrics of versions. Only conclusive ones count for the end of the federation.
CREATE TABLE IF NOT EXISTS evaluations (
  version    INTEGER NOT NULL REFERENCES versions (version),
  source     TEXT NOT NULL CHECK (source IN ('Learners', 'Evaluators')),
  name       TEXT NOT NULL,
  value      REAL NOT NULL,
  examples   INTEGER NOT NULL,
  conclusive INTEGER NOT NULL,
  PRIMARY KEY (version, source, name)
);

-- Learners' certificates that have been issued; times are seconds since the epoch, UTC.
CREATE TABLE IF NOT EXISTS certificates (
  serial     TEXT PRIMARY KEY,
  "group"    TEXT NOT NULL,
  ordinal    INTEGER NOT NULL,
  instance   TEXT NOT NULL,
  "key"      TEXT NOT NULL,
  issued_at  REAL NOT NULL,
  expires_at REAL NOT NULL,
  renews     TEXT NOT NULL,
  revoked_at REAL
);

CREATE TABLE IF NOT EXISTS audit (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  at      REAL NOT NULL,
  action  TEXT NOT NULL,
  learner TEXT NOT NULL,
  peer    TEXT NOT NULL,
  detail  TEXT NOT NULL
);

"""What the state directory holds, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from metisfl.archive.manifest import model_file
from metisfl.wire.layout import Layout


class StateError(RuntimeError):
    """The state directory cannot be used; the message says what to do."""


@dataclass(frozen=True)
class StoredVersion:
    version: int
    sha256: str
    bytes: int
    created_at: float
    stored: bool

    @property
    def file(self) -> str:
        """Its name. What the database says of it is never believed: that may have come with an archive."""
        return model_file(self.version)


@dataclass(frozen=True)
class Contribution:
    """What one learner did in a round."""

    examples: int = 0
    batches: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)

    def followed_by(self, later: Contribution) -> Contribution:
        """Both, when a learner had more than one part in a version."""
        return replace(later, batches=self.batches + later.batches, seconds=self.seconds + later.seconds)


@dataclass(frozen=True)
class RoundRecord:
    """A committed round. Times are seconds since the epoch."""

    number: int
    version: int
    started_at: float
    ended_at: float
    attempts: int
    train_seconds: float
    aggregate_seconds: float
    commit_seconds: float
    bytes_received: int
    bytes_sent: int
    contributed: Mapping[str, Contribution]
    lost: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    """Ids of the tasks whose results are in the version."""


@dataclass(frozen=True)
class Outcome:
    """How the federation ended."""

    state: str
    reason: str
    message: str
    completed_at: float
    published_version: int | None


@dataclass(frozen=True)
class Snapshot:
    """What a starting controller finds."""

    incarnation: int
    layout: Layout | None
    latest: StoredVersion | None
    started_at: float | None
    outcome: Outcome | None

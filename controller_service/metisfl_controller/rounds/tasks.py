"""Task identities and the orders that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    INITIALISE = "initialise"
    TRAIN = "train"
    EVALUATE = "evaluate"


def incarnation(starts: int, now: float) -> int:
    """Names one controller in the ids of its tasks: `starts` of the state directory, then the milliseconds of `now`.

    It grows with each start, whatever becomes of the clock. A restored backup has its count from before, so the same
    count may come twice; the time then tells the controllers apart. `now`: seconds since the epoch.
    """
    return starts * 10**13 + int(1000 * now)


@dataclass(frozen=True)
class TaskId:
    """Names one piece of work for ever: uploads are idempotent by it, across restarts of either side.

    As text: `<federation uid>/<incarnation>/<kind>/<base version>/<learner>/<attempt>`.
    """

    federation: str
    incarnation: int
    """Of the controller that asks for it."""

    kind: Kind
    base_version: int
    learner: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.federation}/{self.incarnation}/{self.kind}/{self.base_version}/{self.learner}/{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> TaskId:
        """Raises ValueError for anything that is not a task id."""
        parts = text.split("/")
        if len(parts) != 6:
            raise ValueError(f"not a task id: '{text[:100]}'")
        federation, incarnation, kind, base, learner, attempt = parts
        task = cls(federation, int(incarnation), Kind(kind), int(base), learner, int(attempt))
        if str(task) != text:
            raise ValueError(f"not a task id: '{text[:100]}'")
        return task


@dataclass(frozen=True)
class Order:
    """A task for one learner. `deadline` is on the clock of the machine's `now`; None means no limit. `steps`: batches
    for this learner to train on; None means what `spec.training` says. `seed`: of its shuffling; None means the round's
    number, the same for all."""

    task: TaskId
    round: int
    evaluate: bool = False
    deadline: float | None = None
    steps: int | None = None
    seed: int | None = None

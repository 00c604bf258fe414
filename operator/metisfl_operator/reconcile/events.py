"""Which changes of conditions are worth an Event, and how one that comes again is counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from metisfl.api import FederationState
from metisfl.spec.status import Condition, ConditionStatus, ConditionType
from metisfl_operator.kube import Kube, KubeError
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.resources.metadata import Manifest

NORMAL, WARNING = "Normal", "Warning"

# States on the way to others; the changes that follow are told, these would only be noise.
_QUIET = {
    Reason.STARTING,
    Reason.IN_PROGRESS,
    Reason.NOT_FAILED,
    Reason.NOT_SUSPENDED,
    Reason.SCALED_DOWN,
    Reason.DELIVERING,
    Reason.NOTHING_TO_DELIVER,
    Reason.MUTUAL_TLS,
}
_ENDS = {Reason.COMPLETED, Reason.FAILED}
_EXPECTED = {Reason.SUSPENDED, Reason.EXPIRED, Reason.SERVING, Reason.ALL_CONNECTED, Reason.WAITING_FOR_SITES}


@dataclass(frozen=True)
class Notice:
    """An Event to be: Normal or Warning, a reason and a message."""

    kind: str
    reason: str
    message: str


def notices(old: Iterable[Condition], new: Iterable[Condition]) -> list[Notice]:
    """One for each reason that is new; a cause that shows in several conditions, at once or later, is told once."""
    known = {condition.reason for condition in old}
    told: dict[str, Notice] = {}
    for condition in new:
        if condition.reason not in known and not _quiet(condition):
            told.setdefault(condition.reason, Notice(_kind(condition), condition.reason, condition.message))
    return list(told.values())


def record(kube: Kube, manifest: Manifest) -> None:
    """Create the Event; the same one again only counts and moves the time of its last sight. Raises KubeError."""
    try:
        kube.create(manifest)
    except KubeError as error:
        if error.code != 409:
            raise
        before = kube.get("Event", manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        if before is not None:
            kube.overwrite(seen_again(before, manifest))


def seen_again(before: Manifest, manifest: Manifest) -> Manifest:
    """What to change in an Event of before."""
    return {
        **{key: manifest[key] for key in ("apiVersion", "kind", "metadata", "lastTimestamp")},
        "count": int(before.get("count") or 1) + 1,
    }


def _quiet(condition: Condition) -> bool:
    match condition.type, condition.status:
        case ConditionType.PROGRESSING, ConditionStatus.TRUE:
            # It gathers learners, trains, evaluates: that training has begun is the one step worth telling.
            return condition.reason != FederationState.TRAINING
        case ((ConditionType.PROGRESSING | ConditionType.COMPLETE), ConditionStatus.FALSE) if condition.reason in _ENDS:
            # Told by the condition that is true then, with the controller's reason.
            return True
    return condition.reason in _QUIET


def _kind(condition: Condition) -> str:
    if condition.type == ConditionType.FAILED:
        return WARNING
    if condition.status == ConditionStatus.TRUE or condition.reason in _EXPECTED:
        return NORMAL
    return WARNING

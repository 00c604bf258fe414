"""Which of its pods a federation should have now."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from metisfl.api import FederationDocument
from metisfl.spec import Federation
from metisfl.spec.status import ConditionStatus, ConditionType, FederationStatus


class Lifecycle(Enum):
    """Controller and learners; controller alone; neither, with the volume kept."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    FINISHED = "finished"
    EXPIRED = "expired"

    @property
    def controller_replicas(self) -> int:
        return 1 if self in (Lifecycle.RUNNING, Lifecycle.FINISHED) else 0

    @property
    def learners_run(self) -> bool:
        return self is Lifecycle.RUNNING


def lifecycle(
    federation: Federation, document: FederationDocument | None, previous: FederationStatus, now: datetime
) -> Lifecycle:
    """By the controller's word; while it is silent, by what it said last about this spec."""
    if federation.spec.suspend:
        return Lifecycle.SUSPENDED
    if document is not None:
        if not document.state.final:
            return Lifecycle.RUNNING
        return Lifecycle.EXPIRED if _expired(federation, document.completion_time, now) else Lifecycle.FINISHED
    judged_at = _finished_generation(previous)
    if judged_at is None:
        return Lifecycle.RUNNING
    if judged_at != federation.metadata.generation:
        # The spec has changed since: only the controller can tell whether there is more to do now.
        return Lifecycle.FINISHED
    return Lifecycle.EXPIRED if _expired(federation, previous.completion_time, now) else Lifecycle.FINISHED


def _finished_generation(previous: FederationStatus) -> int | None:
    for condition in previous.conditions:
        final = condition.type in (ConditionType.COMPLETE, ConditionType.FAILED)
        if final and condition.status == ConditionStatus.TRUE:
            return condition.observed_generation
    return None


def _expired(federation: Federation, ended: datetime | None, now: datetime) -> bool:
    ttl = federation.spec.ttl_seconds_after_finished
    return ttl is not None and ended is not None and now >= ended + timedelta(seconds=ttl)

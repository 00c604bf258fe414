"""Why a pod does not do its work, from what Kubernetes and the pod itself say about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from metisfl_operator.names import LABEL_COMPONENT, LEARNER
from metisfl_operator.reconcile.reasons import CONTROLLER_EXITS, LEARNER_EXITS, Reason
from metisfl_operator.reconcile.trouble import Trouble
from metisfl_operator.resources.metadata import Manifest

_WAITING = {
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_PULL_FAILED,
    "ImageInspectError": Reason.IMAGE_PULL_FAILED,
    "RegistryUnavailable": Reason.IMAGE_PULL_FAILED,
    "CreateContainerConfigError": Reason.CONTAINER_CONFIG_INVALID,
    "CreateContainerError": Reason.CONTAINER_CONFIG_INVALID,
    "RunContainerError": Reason.CONTAINER_CONFIG_INVALID,
}
# Of a pod's events, those that explain a container which is not even created.
_VOLUME_EVENTS = {"FailedMount", "FailedAttachVolume"}
_REJECTION_EVENTS = {"FailedCreate"}
_VOLUME_PATIENCE = timedelta(seconds=10)
"""For how long a kubelet has to fail at a volume; a busy one is often late with its first attempt."""
_MAX_WORDS = 600


def summary(troubles: Iterable[Trouble], most: int) -> list[str]:
    """One line for each thing that is wrong, however many pods it is wrong with; at most `most` lines."""
    subjects: dict[str, list[str]] = {}
    for trouble in troubles:
        subjects.setdefault(trouble.words, []).append(trouble.subject)
    lines = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {words}"
        for words, names in subjects.items()
    ]
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more causes"]


def ready(pod: Manifest) -> bool:
    return _condition(pod, "Ready").get("status") == "True" and "deletionTimestamp" not in pod["metadata"]


def name_of(pod: Manifest) -> str:
    name: str = pod["metadata"]["name"]
    return name


def trouble_of(pod: Manifest, events: Iterable[Manifest] = ()) -> Trouble | None:
    """What is wrong with a pod; None while it works or is only on its way.

    A container that crashed is in trouble also while it runs again: whether it got further this time, only its work
    can tell. `events` are those about this pod.
    """
    if "deletionTimestamp" in pod["metadata"]:
        return None
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return _trouble(pod, Reason.UNSCHEDULABLE, scheduled.get("message", "no node takes it"))
    statuses = pod.get("status", {}).get("containerStatuses", [])
    for status in statuses:
        found = _of_container(pod, status)
        if found:
            return found
    if not any("running" in status.get("state", {}) for status in statuses):
        return _of_volumes(pod, [event for event in events if event.get("reason") in _VOLUME_EVENTS])
    return None


def rejection_of(workload: Manifest, events: Iterable[Manifest]) -> Trouble | None:
    """Why a StatefulSet makes no pods, by its events."""
    for event in events:
        if event.get("reason") in _REJECTION_EVENTS:
            return _trouble(workload, Reason.PODS_REJECTED, event.get("message", ""))
    return None


def learner_id(pod: Manifest, federation: str) -> str:
    """`<group>-<ordinal>`, as the controller knows the learner in this pod."""
    return name_of(pod).removeprefix(f"{federation}-")


def _of_container(pod: Manifest, status: Manifest) -> Trouble | None:
    waiting = status.get("state", {}).get("waiting", {})
    if waiting.get("reason") in _WAITING:
        words = waiting.get("message") or waiting["reason"]
        return _trouble(pod, _WAITING[waiting["reason"]], f"image {status.get('image', '')}: {words}")
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
    if not ended or ended.get("exitCode") == 0:
        return None
    code, words = int(ended.get("exitCode", 1)), (ended.get("message") or "").strip()
    if ended.get("reason") == "OOMKilled":
        return _trouble(pod, Reason.OUT_OF_MEMORY, "killed for using more memory than its limit allows")
    if ended.get("reason") in ("ContainerCannotRun", "StartError"):
        return _trouble(pod, Reason.CONTAINER_CONFIG_INVALID, words)
    return _trouble(pod, _exits(pod).get(code, Reason.CRASHED), f"exit code {code}: {words or 'no last words'}")


def _of_volumes(pod: Manifest, failures: list[Manifest]) -> Trouble | None:
    """What failed for `_VOLUME_PATIENCE`, in the latest words. From first to last failure and not until now: after
    the last one the image may be pulled, and that takes as long as it takes."""
    if not failures:
        return None
    latest = max(failures, key=_last_seen)
    if _last_seen(latest) - min(map(_first_seen, failures)) < _VOLUME_PATIENCE:
        return None
    return _trouble(pod, Reason.VOLUME_UNAVAILABLE, latest.get("message", ""))


def _first_seen(event: Manifest) -> datetime:
    """Events of the older API have the first of these times, those of the newer one the second."""
    stamp = event.get("firstTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(stamp)


def _last_seen(event: Manifest) -> datetime:
    last = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp")
    return datetime.fromisoformat(last) if last else _first_seen(event)


def _exits(pod: Manifest) -> Mapping[int, Reason]:
    labels = pod["metadata"].get("labels", {})
    return LEARNER_EXITS if labels.get(LABEL_COMPONENT) == LEARNER else CONTROLLER_EXITS


def _trouble(of: Manifest, reason: Reason, words: str) -> Trouble:
    text = re.sub(r"\s+", " ", words).strip()
    # The end of a stack trace says what happened; its start only where the program began.
    text = text if len(text) <= _MAX_WORDS else f"…{text[-_MAX_WORDS:]}"
    return Trouble(reason, of["metadata"]["name"], text)


def _condition(pod: Manifest, kind: str) -> Manifest:
    conditions: list[Manifest] = pod.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition.get("type") == kind), {})

"""Why a federation does not run, in words: from what the API server and the controller say about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from metisfl.api import FederationDocument, LearnerDocument
from metisfl.cluster.words import condition, details, holds, since

Json = Mapping[str, Any]

_SHOWN_EVENTS, _SHOWN_LEARNERS = 10, 20

# By the reason of a condition: what people do about it. NAME and NS stand for the federation's.
ADVICE: Mapping[str, str] = {
    "InvalidSpec": "correct the spec as the message says: kubectl edit mfed NAME -n NS",
    "NameConflict": "delete the object that has the name, or create the federation under another one",
    "WaitingForCleanup": "wait; objects of the deleted federation of this name are still going away",
    "ApplyRejected": "correct what the message names in the spec, or ask for a larger quota",
    "PlanUnreadable": "restore the annotation of the volume claim from a backup; dividing data anew would move it",
    "NoPartitionLeft": "create the federation anew with a larger spec.learner.partitions, or want fewer learners",
    "Unschedulable": "free or add nodes, or ask for less in resources, nodeSelector, affinity and tolerations",
    "VolumeUnavailable": "check that the volumes, ConfigMaps and Secrets of the spec exist: kubectl get pvc,cm -n NS",
    "PodsRejected": "what refuses pods is in the message: a quota, a Pod Security level or an admission webhook",
    "ImagePullFailed": "check the image's name, that the nodes can reach its registry, and imagePullSecrets",
    "ContainerConfigInvalid": "correct what the message names in the spec: an environment variable, a volume, a user",
    "OutOfMemory": "raise the memory limit in resources, or lower spec.controller.memoryBudget or the batch size",
    "Crashed": "read what it wrote last: metisfl logs NAME -n NS --previous",
    "SettingsInvalid": "read what it wrote last: metisfl logs NAME -n NS --previous",
    "StateUnusable": "the message says what is wrong with the controller's volume",
    "EntrypointInvalid": "correct spec.learner.entrypoint, the learner image, or the ConfigMap of learner.sourceRef",
    "LearnerCodeFailed": "the learner's own code failed; read its log: metisfl logs NAME -n NS --learner LEARNER",
    "LearnerRefused": "the message says why: another model, another release, or a certificate",
    "ControllerUnreachable": "check the network between learners and controller, NetworkPolicies for one",
    "LearnerLost": "read its log: metisfl logs NAME -n NS --learner LEARNER",
    "WaitingForSites": "give each site its bundle: metisfl bundle NAME -n NS --group GROUP",
    "TlsDisabled": "set spec.security.tls.mode to Auto, unless the network itself encrypts and admits learners alone",
    "CertificatesMissing": "make the Secret that the message names, or see why cert-manager has not: kubectl describe "
    "certificate -n NS",
    "CertificatesUnusable": "restore or replace the Secret that the message names",
    "NoAnswer": "read the controller's log: metisfl logs NAME -n NS",
    "DeliveryFailed": "check spec.output.url and the Secret of spec.output.secretRef; training goes on meanwhile",
    "LearnersMissing": "wait, or lower spec.selection.minLearners",
    "QuorumNotReached": "see which learners were missing, and raise roundDeadlineSeconds or lower quorumPercent",
}


@dataclass(frozen=True)
class Findings:
    """What was found out; what the user may not read is missing, and `unread` says so."""

    federation: Json
    pods: Sequence[Json] = ()
    events: Sequence[Json] = ()
    document: FederationDocument | None = None
    unread: Sequence[str] = field(default_factory=tuple)


def diagnosis(found: Findings, now: datetime) -> list[str]:
    """Lines for a terminal: how it stands, what is wrong, what to do, and everything that this was taken from."""
    lines = [*details(found.federation), ""]
    if wrong := _wrong(found):
        lines += ["What is wrong:", *(f"  {line}" for line in wrong), ""]
    if advice := _advice(found):
        lines += ["What to do:", *(f"  {line}" for line in advice), ""]
    lines += ["Conditions:", *_conditions(found.federation), ""]
    lines += ["Pods:", *(_pods(found.pods, now) or ["  none"])]
    if found.document is not None:
        lines += ["", "Learners:", *(_learners(found.document) or ["  none has joined yet"])]
    if found.events:
        lines += ["", "Events:", *_events(found.events, now)]
    if found.unread:
        lines += ["", "Not found out:", *(f"  {line}" for line in found.unread)]
    return lines


def _troubled(found: Findings) -> list[Json]:
    """Conditions that tell of trouble, the most telling first."""
    federation = found.federation
    if holds(federation, "Complete") or holds(federation, "Suspended"):
        kinds = ["ModelDelivered"]
    elif holds(federation, "Failed"):
        return [condition(federation, "Failed")]
    else:
        kinds = ["Progressing", "ControllerAvailable", "LearnersReady", "ModelDelivered"]
    conditions = (condition(federation, kind) for kind in kinds)
    return [c for c in conditions if c.get("status") == "False" and c.get("reason") in ADVICE]


def _wrong(found: Findings) -> list[str]:
    if not found.federation.get("status", {}).get("conditions"):
        return ["The operator has not looked at it: it is not running, or does not serve this namespace."]
    told: dict[str, str] = {}
    for each in _troubled(found):
        told.setdefault(each["message"], f"{each['reason']}: {each['message']}")
    return list(told.values())


def _advice(found: Findings) -> list[str]:
    meta = found.federation["metadata"]
    if not found.federation.get("status", {}).get("conditions"):
        return [
            "kubectl get pods -A -l app.kubernetes.io/name=metisfl-operator",
            "metisfl install | kubectl apply -f -",
        ]
    if holds(found.federation, "Suspended"):
        return [f"it is suspended: metisfl resume {meta['name']} -n {meta['namespace']}"]
    reasons = dict.fromkeys(each["reason"] for each in _troubled(found))
    lines = [ADVICE[reason] for reason in reasons if reason in ADVICE]
    return [line.replace("NAME", meta["name"]).replace("NS", meta["namespace"]) for line in dict.fromkeys(lines)]


def _conditions(federation: Json) -> list[str]:
    found = federation.get("status", {}).get("conditions", [])
    return [f"  {c['type']:<20} {c['status']:<6} {c['reason']}: {c['message']}" for c in found] or ["  none yet"]


def _pods(pods: Iterable[Json], now: datetime) -> list[str]:
    lines = []
    for pod in pods:
        status = pod.get("status", {})
        containers = status.get("containerStatuses", [])
        restarts = sum(container.get("restartCount", 0) for container in containers)
        ready = all(container.get("ready") for container in containers) and bool(containers)
        words = [
            "ready" if ready else _why(containers) or status.get("phase", "Pending"),
            f"{restarts} restarts" if restarts else "",
            since(pod["metadata"].get("creationTimestamp"), now),
        ]
        lines.append(f"  {pod['metadata']['name']}: {', '.join(filter(None, words))}")
    return lines


def _why(containers: Iterable[Json]) -> str:
    for container in containers:
        for state in container.get("state", {}).values():
            if reason := state.get("reason"):
                return str(reason)
    return ""


def _learners(document: FederationDocument) -> list[str]:
    """Those in trouble first."""
    ordered = sorted(document.learners, key=lambda learner: (learner.connected and not learner.message, learner.id))
    lines = [f"  {_learner(learner)}" for learner in ordered[:_SHOWN_LEARNERS]]
    rest = len(ordered) - len(lines)
    return [*lines, f"  and {rest} more"] if rest else lines


def _learner(learner: LearnerDocument) -> str:
    there = learner.activity if learner.connected else f"{learner.activity}, not connected"
    counts = f"{learner.contributions} rounds, {learner.train_examples} examples"
    return f"{learner.id}: {there}, {counts}{f': {learner.message}' if learner.message else ''}"


def _events(events: Sequence[Json], now: datetime) -> list[str]:
    lines = []
    for event in events[-_SHOWN_EVENTS:]:
        subject = event.get("involvedObject", {})
        ago = since(event.get("lastTimestamp") or event.get("eventTime"), now)
        count = f" ({event['count']} times)" if event.get("count", 1) > 1 else ""
        lines.append(
            f"  {ago} ago, {subject.get('kind')} {subject.get('name')}: "
            f"{event.get('reason')}: {' '.join(event.get('message', '').split())}{count}"
        )
    return lines

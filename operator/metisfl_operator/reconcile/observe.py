"""What is there: the federation's children in the cluster, their pods, and what the controller says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from metisfl.api import FederationDocument
from metisfl_operator import names
from metisfl_operator.kube import Kube
from metisfl_operator.progress import ProgressError, ProgressSource
from metisfl_operator.reconcile import pods
from metisfl_operator.resources.claim import held_by
from metisfl_operator.resources.metadata import Manifest, Owner
from metisfl_operator.resources.secrets import token_of

OWNED_KINDS = (
    "PersistentVolumeClaim",
    "ConfigMap",
    "Secret",
    "Service",
    "StatefulSet",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Ingress",
    "TLSRoute",
    "Certificate",
)


@dataclass(frozen=True)
class Observed:
    """`children` by (kind, name); `events` are those about pods and workloads that are in trouble."""

    children: dict[tuple[str, str], Manifest]
    pods: list[Manifest] = field(default_factory=list)
    events: list[Manifest] = field(default_factory=list)
    document: FederationDocument | None = None
    no_answer: str = ""
    """Why a controller that is ready gave no document."""
    address: str | None = None
    """Where a controller that is ready can be asked."""
    token: str | None = None
    """What it asks for in return."""

    def child(self, kind: str, name: str) -> Manifest | None:
        return self.children.get((kind, name))

    def pods_of(self, component: str) -> list[Manifest]:
        return [pod for pod in self.pods if pod["metadata"].get("labels", {}).get(names.LABEL_COMPONENT) == component]

    def events_of(self, manifest: Manifest) -> list[Manifest]:
        return [e for e in self.events if e["involvedObject"].get("uid") == manifest["metadata"]["uid"]]


def observe(kube: Kube, progress: ProgressSource, owner: Owner, existing_claim: str | None) -> Observed:
    """`existing_claim` is the name of a volume that is not a child, if there is one.

    Raises KubeError when the API server does not answer; a silent controller is part of the answer."""
    selector = f"{names.LABEL_FEDERATION}={owner.name}"
    children = {
        (kind, child["metadata"]["name"]): {**child, "kind": kind}
        for kind in OWNED_KINDS
        for child in kube.list(kind, owner.namespace, labels=selector)
        if owned_by(child, owner) or held_by(child, owner)
    }
    if existing_claim and (claim := kube.get("PersistentVolumeClaim", owner.namespace, existing_claim)):
        children["PersistentVolumeClaim", existing_claim] = claim
    root = names.root_secret(owner.name)
    # By name as well: one that had lost its label would be taken for missing, and overwritten with another root.
    if ("Secret", root) not in children and (secret := kube.get("Secret", owner.namespace, root)):
        children |= {("Secret", root): {**secret, "kind": "Secret"}} if owned_by(secret, owner) else {}
    found = kube.list("Pod", owner.namespace, labels=selector)
    address, token = _address(owner, children, found), token_of(children, owner.name)
    document, no_answer = (None, "") if address is None else _ask_controller(progress, owner, address, token)
    return Observed(children, found, _events(kube, owner, children, found), document, no_answer, address, token)


def owned_by(manifest: Manifest, owner: Owner) -> bool:
    references = manifest["metadata"].get("ownerReferences", [])
    return any(reference.get("uid") == owner.uid for reference in references)


def _address(owner: Owner, children: dict[tuple[str, str], Manifest], found: Iterable[Manifest]) -> str | None:
    service = children.get(("Service", names.controller_name(owner.name)))
    host = (service or {}).get("spec", {}).get("clusterIP", "")
    serving = any(
        pods.ready(pod) for pod in found if pod["metadata"]["labels"].get(names.LABEL_COMPONENT) == names.CONTROLLER
    )
    return host if serving and host not in ("", "None") else None


def _ask_controller(
    progress: ProgressSource, owner: Owner, host: str, token: str | None
) -> tuple[FederationDocument | None, str]:
    try:
        document = progress.read(host, token)
    except ProgressError as error:
        return None, str(error)
    if document.uid != owner.uid:
        return None, f"{host} answers for another federation ({document.name}, uid {document.uid})"
    return document, ""


def _events(
    kube: Kube, owner: Owner, children: dict[tuple[str, str], Manifest], found: list[Manifest]
) -> list[Manifest]:
    """Events are the only place that says why a pod cannot be made, or its volumes not mounted: read when one lacks."""
    short = [
        child
        for (kind, _), child in children.items()
        if kind == "StatefulSet" and child.get("status", {}).get("replicas", 0) < child["spec"].get("replicas", 0)
    ]
    stuck = [pod for pod in found if not pods.ready(pod)]
    suspects = {manifest["metadata"]["uid"] for manifest in (*short, *stuck)}
    if not suspects:
        return []
    warnings = kube.list("Event", owner.namespace, fields="type=Warning")
    return [event for event in warnings if event["involvedObject"].get("uid") in suspects]

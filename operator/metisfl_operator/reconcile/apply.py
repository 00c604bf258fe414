"""Make the cluster hold what is desired: apply what differs, prune what is no longer wanted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from metisfl.spec import KIND
from metisfl_operator.kube import Kube, KubeError
from metisfl_operator.names import controller_name
from metisfl_operator.reconcile.observe import Observed, owned_by
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.reconcile.trouble import Trouble
from metisfl_operator.resources.metadata import Manifest, Owner
from metisfl_operator.resources.volume import mounted_claims

# The volume is never pruned: what was trained is worth more than tidiness.
_PRUNED_KINDS = frozenset(
    {"StatefulSet", "Service", "ConfigMap", "Secret", "Certificate"}
    | {"NetworkPolicy", "PodDisruptionBudget", "Ingress", "TLSRoute"}
)


def apply(
    kube: Kube, owner: Owner, observed: Observed, manifests: Iterable[Manifest], *, prune: bool = True
) -> list[Trouble]:
    """Apply in order, each object that differs from what was observed; one that is refused does not hold up the others.

    Except that a StatefulSet stays as it is while its pods would mount a claim that could not be made: they would write
    to somebody else's volume, or have one made that nobody owns.
    Answers what was refused. Raises KubeError when the API server cannot be asked.
    """
    refused: list[Trouble] = []
    unclaimed: set[str] = set()
    wanted = list(manifests)
    for manifest in wanted:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind == "StatefulSet" and unclaimed & mounted_claims(manifest):
            continue
        current = observed.child(kind, name)
        if trouble := _refusal(kube, owner, manifest, current):
            refused.append(trouble)
            if kind == "PersistentVolumeClaim" and current is None:
                unclaimed.add(name)
    if prune:
        _prune(kube, observed, wanted)
    return refused


def _refusal(kube: Kube, owner: Owner, manifest: Manifest, current: Manifest | None) -> Trouble | None:
    """Apply one object, and answer what stands against it."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    # What was observed is from lists, whose items come without their apiVersion.
    content = {key: value for key, value in manifest.items() if key != "apiVersion"}
    if current is not None and holds(content, current):
        return None
    if current is None and (conflict := _conflict(kube, owner, kind, name)):
        return conflict
    try:
        if has_additions(manifest, kube.apply(manifest)):
            kube.overwrite(manifest)
    except KubeError as error:
        if not error.rejected:
            raise
        return Trouble(Reason.APPLY_REJECTED, f"{kind} {name}", str(error))
    return None


def holds(wanted: Any, current: Any) -> bool:
    """Whether everything in `wanted` is in `current` as well; the server adds defaults to what it is given."""
    if isinstance(wanted, dict) and isinstance(current, dict):
        return all(holds(value, current[key]) if key in current else value in ({}, []) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(current, list):
        return len(wanted) == len(current) and all(holds(a, b) for a, b in zip(wanted, current, strict=True))
    return bool(wanted == current)


def has_additions(wanted: Any, current: Any) -> bool:
    """Whether a list of `current` has more elements than were asked for, such as a port that somebody added."""
    if isinstance(wanted, dict) and isinstance(current, dict):
        return any(has_additions(value, current.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(current, list):
        return len(current) > len(wanted) or any(map(has_additions, wanted, current))
    return False


def _conflict(kube: Kube, owner: Owner, kind: str, name: str) -> Trouble | None:
    """What an object that was not among ours has against being ours: its maker."""
    found = kube.get(kind, owner.namespace, name)
    if found is None or owned_by(found, owner):
        return None
    references = found["metadata"].get("ownerReferences", [])
    if any(r.get("kind") == KIND and r.get("name") == owner.name for r in references):
        return Trouble(
            Reason.WAITING_FOR_CLEANUP,
            f"{kind} {name}",
            "one of a deleted federation of this name is still there; waiting for it to go",
        )
    way_out = "delete it, or choose another metadata.name"
    if kind == "PersistentVolumeClaim" and name == controller_name(owner.name):
        way_out += ", or go on from it with controller.storage.existingClaim"
    return Trouble(Reason.NAME_CONFLICT, f"{kind} {name}", f"exists and is not this federation's; {way_out}")


def _prune(kube: Kube, observed: Observed, wanted: Iterable[Manifest]) -> None:
    keep = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
    for key, child in observed.children.items():
        if key not in keep and child["kind"] in _PRUNED_KINDS and "deletionTimestamp" not in child["metadata"]:
            kube.delete(child)

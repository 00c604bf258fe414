"""Going on from a volume that was kept: `spec.controller.storage.existingClaim`."""

from __future__ import annotations

from metisfl.spec import KIND
from metisfl_operator.kube import Kube, KubeError
from metisfl_operator.partitions import PartitionPlan
from metisfl_operator.reconcile.observe import owned_by
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.reconcile.trouble import Trouble
from metisfl_operator.resources.claim import HOLDER_ANNOTATION, held_by, holding
from metisfl_operator.resources.metadata import Manifest, Owner


def adopt(kube: Kube, owner: Owner, name: str, claim: Manifest | None, plan: PartitionPlan) -> Trouble | None:
    """Mark the claim as this federation's, with its partition plan; answers what stands against it.

    The claim is otherwise left as it is, and never deleted. Raises KubeError when the API server cannot be asked.
    """
    subject = f"PersistentVolumeClaim {name}"
    if claim is None:
        return Trouble(Reason.VOLUME_UNAVAILABLE, subject, "is named in controller.storage.existingClaim and not there")
    if other := _holder(kube, owner, claim):
        return Trouble(
            Reason.NAME_CONFLICT,
            subject,
            f"is in use by Federation {other}; delete that one first, with controller.storage.retain set to true",
        )
    wanted = holding(owner, plan)
    if wanted.items() <= claim["metadata"].get("annotations", {}).items():
        return None
    meta = {"name": name, "namespace": owner.namespace, "annotations": wanted}
    try:
        kube.overwrite({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta})
    except KubeError as error:
        if not error.rejected:
            raise
        return Trouble(Reason.APPLY_REJECTED, subject, str(error))
    return None


def _holder(kube: Kube, owner: Owner, claim: Manifest) -> str:
    """The name of another federation that has this claim; empty when it is free, or this federation's own."""
    if held_by(claim, owner) or owned_by(claim, owner):
        return ""
    for reference in claim["metadata"].get("ownerReferences", []):
        if reference.get("kind") == KIND:
            return str(reference["name"])
    name, _, uid = claim["metadata"].get("annotations", {}).get(HOLDER_ANNOTATION, "").partition("/")
    holder = kube.get(KIND, owner.namespace, name) if name else None
    return name if holder is not None and holder["metadata"]["uid"] == uid else ""

"""The controller's volume: checkpoints and history, kept until the Federation itself is deleted, or for longer."""

from __future__ import annotations

from metisfl.cluster.names import PLAN_ANNOTATION as PLAN_ANNOTATION
from metisfl.spec import API_GROUP, Federation
from metisfl_operator import names
from metisfl_operator.partitions import PartitionPlan
from metisfl_operator.resources.metadata import Manifest, Owner, metadata
from metisfl_operator.resources.volume import claim_spec

HOLDER_ANNOTATION = f"{API_GROUP}/held-by"


def holding(owner: Owner, plan: PartitionPlan) -> dict[str, str]:
    """Annotations of a claim that a federation has and does not own: it survives the federation."""
    return {PLAN_ANNOTATION: plan.text(), HOLDER_ANNOTATION: f"{owner.name}/{owner.uid}"}


def held_by(claim: Manifest, owner: Owner) -> bool:
    holder = claim["metadata"].get("annotations", {}).get(HOLDER_ANNOTATION)
    return bool(holder == f"{owner.name}/{owner.uid}")


def claim_name(federation_name: str, federation: Federation) -> str:
    return federation.spec.controller.storage.existing_claim or names.controller_name(federation_name)


def volume_claim(owner: Owner, federation: Federation, plan: PartitionPlan) -> Manifest:
    """Made by the operator and not by a StatefulSet's template, whose claims would outlive their owner.

    The plan is kept here because this is the one child that lives exactly as long as what was trained by it.
    """
    name = names.controller_name(owner.name)
    meta = metadata(owner, name, names.labels(owner.name, names.CONTROLLER))
    storage = federation.spec.controller.storage
    annotations = {PLAN_ANNOTATION: plan.text()}
    if storage.retain:
        del meta["ownerReferences"]
        annotations = holding(owner, plan)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {**meta, "annotations": annotations},
        "spec": claim_spec(storage.size, storage.storage_class_name),
    }

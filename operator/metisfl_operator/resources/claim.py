"""The controller's volume: checkpoints and history, kept until the Federation itself is deleted."""

from __future__ import annotations

from metisfl.spec import API_GROUP, Federation
from metisfl_operator import names
from metisfl_operator.partitions import PartitionPlan
from metisfl_operator.resources.metadata import Manifest, Owner, metadata

PLAN_ANNOTATION = f"{API_GROUP}/partition-plan"


def volume_claim(owner: Owner, federation: Federation, plan: PartitionPlan) -> Manifest:
    """Made by the operator and not by a StatefulSet's template, whose claims would outlive their owner.

    The plan is kept here because this is the one child that lives exactly as long as what was trained by it.
    """
    name = names.controller_name(owner.name)
    meta = metadata(owner, name, names.labels(owner.name, names.CONTROLLER))
    storage = federation.spec.controller.storage
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {**meta, "annotations": {PLAN_ANNOTATION: plan.text()}},
        "spec": spec,
    }

"""`spec.controller`: the controller's pod, its memory and its volume."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metisfl.spec.expose import ExposeSpec
from metisfl.spec.fields import Image, MemoryQuantity, ObjectName, Quantity, SpecModel
from metisfl.spec.pods import PodOptions
from metisfl.spec.rule import Json, Rule


class StorageSpec(SpecModel):
    """The volume that holds checkpoints and history."""

    existing_claim: ObjectName | None = None
    """Go on from this PersistentVolumeClaim, kept from an earlier federation or made from an archive, instead of
    making one. Its size and class are what they are, and it is never deleted with the Federation."""

    retain: bool = False
    """Keep the volume when the Federation is deleted, for another one to go on from with existingClaim."""

    size: Quantity = "1Gi"
    """Room for a few versions of the model and the history; it can grow where the storage class allows it."""

    storage_class_name: ObjectName | None = None
    """By default the cluster's default class."""


class ControllerSpec(PodOptions):
    """The controller's pod."""

    image: Image | None = None
    """Controller image; by default the one the operator was installed with."""

    protect_from_eviction: bool = False
    """Keep the pod with a PodDisruptionBudget while the federation runs: `kubectl drain` then waits for its end. A
    controller that is evicted goes on elsewhere after its last committed round, so this only saves time."""

    expose: ExposeSpec = ExposeSpec()
    storage: StorageSpec = StorageSpec()

    keep_versions: Annotated[int, Field(ge=1, le=1000)] = 3
    """How many of the newest model versions are kept on the volume."""

    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Aggregation threads; by default as many as the pod's CPU limit allows."""

    memory_budget: MemoryQuantity | None = None
    """Memory for models: sums, uploads on their way in, the model that is served and the next one. What does not fit
    goes to files on the controller's volume, so that a model may be larger than the budget. The process needs about
    300Mi beside it. By default 60 percent of the pod's memory limit, or of the machine's memory."""


def _existing_claim_is_its_owners(storage: Json) -> bool:
    return "existingClaim" not in storage or not (storage.get("retain") or "storageClassName" in storage)


RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec", "controller", "storage"),
        message="existingClaim goes without storageClassName, which it has, and without retain: it is never deleted",
        holds=_existing_claim_is_its_owners,
        cel="!has(self.existingClaim) || !(has(self.retain) && self.retain || has(self.storageClassName))",
    ),
)

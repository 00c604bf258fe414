"""`spec.controller`: the controller's pod, its memory and its volume."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import Image, MemoryQuantity, ObjectName, PodPart, Quantity, SpecModel


class StorageSpec(SpecModel):
    """The volume that holds checkpoints and history."""

    size: Quantity = "1Gi"
    """Room for a few versions of the model and the history; it can grow where the storage class allows it."""

    storage_class_name: ObjectName | None = None
    """By default the cluster's default class."""


class ControllerSpec(SpecModel):
    """The controller's pod."""

    image: Image | None = None
    """Controller image; by default the one the operator was installed with."""

    resources: PodPart | None = None
    """Requests and limits of the controller's container, as in a pod."""

    storage: StorageSpec = StorageSpec()
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Aggregation threads; by default as many as the pod's CPU limit allows."""

    memory_budget: MemoryQuantity | None = None
    """Memory for models: sums, uploads on their way in, the model that is served and the next one. What does not fit
    goes to files on the controller's volume, so that a model may be larger than the budget. The process needs about
    300Mi beside it. By default 60 percent of the pod's memory limit, or of the machine's memory."""

"""The default StorageClass and its volumes: folders on the node, always some of them free.

They are of type `local`, which honours a pod's fsGroup; `hostPath` does not.
"""

import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _cluster.api import Api
from _cluster.home import NODE, Home

CLASS = "standard"
FREE = 16
_CAPACITY = "20Gi"
_VOLUMES = "/api/v1/persistentvolumes"


@dataclass(frozen=True)
class Plan:
    """What to do about the volumes: which to throw away, and how many to make."""

    discard: Sequence[str]
    make: int


def publish(api: Api) -> None:
    """Make the StorageClass that claims get when they name none."""
    api.apply(
        f"/apis/storage.k8s.io/v1/storageclasses/{CLASS}",
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )


def tend(api: Api, home: Home) -> None:
    """Throw away the volumes whose claim is gone, with what they hold, and keep some free ones on offer."""
    todo = plan(api.items(_VOLUMES))
    for name in todo.discard:
        shutil.rmtree(home.volumes / name, ignore_errors=True)
        api.delete(f"{_VOLUMES}/{name}")
    for _ in range(todo.make):
        name = f"local-{uuid.uuid4().hex[:10]}"
        folder = home.volumes / name
        folder.mkdir(parents=True)
        api.apply(f"{_VOLUMES}/{name}", volume(name, folder))


def plan(volumes: Iterable[dict[str, Any]]) -> Plan:
    """Decide from the present volumes (API objects)."""
    ours = [entry for entry in volumes if entry["spec"].get("storageClassName") == CLASS]
    phases = {entry["metadata"]["name"]: entry.get("status", {}).get("phase", "Pending") for entry in ours}
    free = sum(phase in {"Pending", "Available"} for phase in phases.values())
    discard = sorted(name for name, phase in phases.items() if phase in {"Released", "Failed"})
    return Plan(discard, max(0, FREE - free))


def volume(name: str, folder: Path) -> dict[str, Any]:
    """A PersistentVolume over a folder of this node."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": _CAPACITY},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }

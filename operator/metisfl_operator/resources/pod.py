"""What pods of controller and learners have in common: Pod Security level "restricted", nothing mounted unasked."""

from __future__ import annotations

from typing import Any

from metisfl_operator.resources.metadata import Manifest

USER = 10001
STATE_DIRECTORY = "/var/lib/metisfl"
CONFIG_DIRECTORY = "/etc/metisfl"
SOURCE_DIRECTORY = "/etc/metisfl/source"
SCRATCH_DIRECTORY = "/tmp"  # the container's own, an emptyDir

# Prefixed, so that a learner group's own volumes can have any other name.
STATE_VOLUME = "metisfl-state"
CONFIG_VOLUME = "metisfl-config"
SOURCE_VOLUME = "metisfl-source"
SCRATCH_VOLUME = "metisfl-scratch"

DEFAULT_RESOURCES: Manifest = {"requests": {"cpu": "50m", "memory": "128Mi"}}


def env(**variables: str | None) -> list[Manifest]:
    """Environment entries in a stable order; None leaves a variable out."""
    return [{"name": name, "value": value} for name, value in variables.items() if value is not None]


def scratch() -> Manifest:
    return {"name": SCRATCH_VOLUME, "emptyDir": {}}


def mount(volume: str, path: str, *, read_only: bool = False) -> Manifest:
    return {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}


def container(name: str, image: str, pull_policy: str, **fields: Any) -> Manifest:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        # A crash is explained by its own words, also when the process had no time to write them down.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **fields,
    }


def pod_spec(container: Manifest, volumes: list[Manifest], grace_seconds: int, **fields: Any) -> Manifest:
    """One container, no service-account token, no environment of other Services."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
        **fields,
    }

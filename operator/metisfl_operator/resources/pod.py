"""What pods of controller and learners have in common: Pod Security level "restricted", nothing mounted unasked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metisfl.spec.pods import PodOptions
from metisfl_operator.resources.metadata import Manifest

USER = 10001
STATE_DIRECTORY = "/var/lib/metisfl"
CONFIG_DIRECTORY = "/etc/metisfl"
SOURCE_DIRECTORY = "/etc/metisfl/source"
ACCESS_DIRECTORY = "/etc/metisfl-access"
SCRATCH_DIRECTORY = "/tmp"  # the container's own, an emptyDir

# Prefixed, so that a learner group's own volumes can have any other name.
STATE_VOLUME = "metisfl-state"
CONFIG_VOLUME = "metisfl-config"
SOURCE_VOLUME = "metisfl-source"
SCRATCH_VOLUME = "metisfl-scratch"
ACCESS_VOLUME = "metisfl-access"
SECRET_MODE = 0o440

DEFAULT_RESOURCES: Manifest = {"requests": {"cpu": "50m", "memory": "128Mi"}}

RESTRICTED: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Of every container, by the Pod Security Standard of that name, and a little stricter."""


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
        "securityContext": RESTRICTED,
        **fields,
    }


def template(
    options: PodOptions,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    spec: Manifest,
    selector: Mapping[str, str],
) -> Manifest:
    """A StatefulSet's pod template: what the product needs, and what the options ask for beside it."""
    notes = {**options.pod_annotations, **annotations}
    return {
        "metadata": {"labels": {**options.pod_labels, **labels}, **({"annotations": notes} if notes else {})},
        "spec": {**spec, **_placement(options, selector)},
    }


def merged_env(own: list[Manifest], options: PodOptions) -> list[Manifest]:
    """The product's variables and the user's, who may replace those that are not METISFL_ (a rule of the spec)."""
    theirs = {var.name: var.model_dump(by_alias=True, exclude_none=True) for var in options.env}
    return [*(entry for entry in own if entry["name"] not in theirs), *theirs.values()]


def resources(given: Manifest | None) -> Manifest:
    """Requests and limits with every amount as text: API servers of some versions refuse numbers when they merge."""
    found = DEFAULT_RESOURCES if given is None else given
    return {
        key: {name: str(amount) for name, amount in value.items()} if isinstance(value, dict) else value
        for key, value in found.items()
    }


def env_from(options: PodOptions) -> Manifest:
    return {"envFrom": options.env_from} if options.env_from else {}


def _placement(options: PodOptions, selector: Mapping[str, str]) -> Manifest:
    """Where pods run and with whose rights; only what was asked for."""
    found = {
        "nodeSelector": options.node_selector,
        "affinity": options.affinity,
        "tolerations": options.tolerations,
        "topologySpreadConstraints": [
            {"labelSelector": {"matchLabels": dict(selector)}, **constraint}
            for constraint in options.topology_spread_constraints
        ],
        "priorityClassName": options.priority_class_name,
        "runtimeClassName": options.runtime_class_name,
        "serviceAccountName": options.service_account_name,
        "imagePullSecrets": [{"name": secret.name} for secret in options.image_pull_secrets],
        "initContainers": [
            {
                **each,
                "resources": resources(each.get("resources", {})),
                "securityContext": {**RESTRICTED, **each.get("securityContext", {})},
            }
            for each in options.init_containers
        ],
    }
    return {key: value for key, value in found.items() if value}


def pod_spec(container: Manifest, volumes: list[Manifest], grace_seconds: int) -> Manifest:
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
    }

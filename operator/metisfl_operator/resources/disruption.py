"""The PodDisruptionBudget that keeps a running controller on its node."""

from __future__ import annotations

from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, metadata


def disruption_budget(owner: Owner) -> Manifest:
    """In the form that policy/v1 and, on servers before 1.21, policy/v1beta1 share."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner, names.controller_name(owner.name), names.labels(owner.name, names.CONTROLLER)),
        "spec": {
            "minAvailable": 1,
            "selector": {"matchLabels": names.selector_labels(owner.name, names.CONTROLLER)},
        },
    }

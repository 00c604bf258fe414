"""The ConfigMap that the controller reads: its Federation and the plan of partitions."""

from __future__ import annotations

import json
from typing import Any

from metisfl.spec import Federation
from metisfl_operator import names
from metisfl_operator.partitions import PartitionPlan
from metisfl_operator.resources.metadata import Manifest, Owner, metadata

# What only the operator acts upon: changing it must not restart the controller.
_OPERATOR_FIELDS: dict[str, Any] = {
    "suspend": True,
    "ttl_seconds_after_finished": True,
    "learner": {"source_ref": True},
    "controller": {"image", "resources", "storage"},
    "learner_groups": {"__all__": {"image", "resources", "volumes", "volume_mounts", "node_selector"}},
}


def controller_config(federation: Federation, owner: Owner) -> dict[str, str]:
    """The Federation as the controller reads it, as JSON text with a stable order; the plan is a file of its own."""
    document = {
        "apiVersion": federation.api_version,
        "kind": federation.kind,
        "metadata": {"name": owner.name, "namespace": owner.namespace, "uid": owner.uid},
        "spec": federation.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=_OPERATOR_FIELDS),
    }
    return {names.CONFIG_FILE: _text(document)}


def config_map(owner: Owner, config: dict[str, str], plan: PartitionPlan) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, names.controller_name(owner.name), names.labels(owner.name, names.CONTROLLER)),
        "data": {**config, names.PLAN_FILE: _text(plan.for_controller())},
    }


def _text(document: object) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"

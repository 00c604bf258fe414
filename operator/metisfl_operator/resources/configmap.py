"""The ConfigMap that the controller reads: its Federation and the plan of partitions."""

from __future__ import annotations

import json
from typing import Any

from metisfl.api.configuration import configuration_digest
from metisfl.spec import Federation, parse_federation
from metisfl.spec.pods import PodOptions
from metisfl_operator import names
from metisfl_operator.partitions import PartitionPlan
from metisfl_operator.resources.metadata import Manifest, Owner, metadata

# What only the operator acts upon; some of it may be large, or nobody else's business.
_POD_FIELDS = {"image", *PodOptions.model_fields}
_OPERATOR_FIELDS: dict[str, Any] = {
    "suspend": True,
    "ttl_seconds_after_finished": True,
    "learner": {"source_ref": True},
    "controller": {"protect_from_eviction", "expose", *_POD_FIELDS},
    "learner_groups": {"__all__": _POD_FIELDS},
}


def controller_config(federation: Federation, owner: Owner) -> dict[str, str]:
    """The Federation as the controller reads it, as JSON text with a stable order; the plan is a file of its own."""
    document = {
        "apiVersion": federation.api_version,
        "kind": federation.kind,
        "metadata": {"name": owner.name, "namespace": owner.namespace, "uid": owner.uid},
        # Only what differs from the defaults: a controller of an older release need not know fields that nobody set.
        "spec": federation.spec.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude_defaults=True, exclude=_OPERATOR_FIELDS
        ),
    }
    return {names.CONFIG_FILE: _text(document)}


def config_map(owner: Owner, config: dict[str, str], plan: PartitionPlan) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, names.controller_name(owner.name), names.labels(owner.name, names.CONTROLLER)),
        "data": {**config, names.PLAN_FILE: _text(plan.for_controller())},
    }


def accepted_federation(found: Manifest | None) -> Federation | None:
    """The Federation that a ConfigMap of before holds; None when there is none that can be read."""
    text = (found or {}).get("data", {}).get(names.CONFIG_FILE)
    try:
        return None if text is None else parse_federation(json.loads(text))
    except ValueError:
        return None


def digest_of(configuration: Manifest) -> str:
    """What a controller reports once it has read this ConfigMap."""
    data = configuration["data"]
    return configuration_digest(data[names.CONFIG_FILE], data[names.PLAN_FILE])


def _text(document: object) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"

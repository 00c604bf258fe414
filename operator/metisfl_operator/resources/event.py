"""A Kubernetes Event about a Federation, as `kubectl describe` lists them."""

from __future__ import annotations

from datetime import datetime

from metisfl.spec import API_GROUP, API_VERSION, KIND
from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, digest

# The API server takes no longer ones.
_MAX_MESSAGE_LENGTH = 1024


def event(owner: Owner, kind: str, reason: str, message: str, now: datetime) -> Manifest:
    """`kind` is Normal or Warning. The name follows from what is told, so that the same has the same name."""
    name = f"{owner.name}.{digest([owner.uid, kind, reason, message])}"
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": owner.namespace},
        "involvedObject": {
            "apiVersion": f"{API_GROUP}/{API_VERSION}",
            "kind": KIND,
            "name": owner.name,
            "namespace": owner.namespace,
            "uid": owner.uid,
        },
        "type": kind,
        "reason": reason,
        "message": _shortened(message),
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _shortened(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE_LENGTH else f"{message[: _MAX_MESSAGE_LENGTH - 1]}…"

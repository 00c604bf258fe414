"""The address under which learners and people find the controller."""

from __future__ import annotations

from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, metadata


def controller_service(owner: Owner) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, names.controller_name(owner.name), names.labels(owner.name, names.CONTROLLER)),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector_labels(owner.name, names.CONTROLLER),
            "ports": [
                {"name": "grpc", "port": names.GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"},
                {"name": "http", "port": names.HTTP_PORT, "targetPort": "http", "protocol": "TCP"},
            ],
        },
    }

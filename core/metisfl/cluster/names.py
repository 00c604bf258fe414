"""What the operator and the command line both call the objects of a federation."""

from __future__ import annotations

from metisfl.spec import API_GROUP

LABEL_FEDERATION = f"{API_GROUP}/federation"
PLAN_ANNOTATION = f"{API_GROUP}/partition-plan"
"""On the claim of the controller's volume: which shares of the data are whose."""


def controller_name(federation: str) -> str:
    """The controller's StatefulSet, Service, ConfigMap and PersistentVolumeClaim."""
    return f"{federation}-controller"


def bootstrap_secret(federation: str, group: str) -> str:
    """What a learner group enrols with."""
    return f"{federation}-{group}-bootstrap"


def token_secret(federation: str) -> str:
    """The token of the controller's REST side."""
    return f"{federation}-api-token"

"""What the operator calls the objects of a federation; a test holds these against the operator's own names."""

from __future__ import annotations

from metisfl.spec import API_GROUP

LABEL_FEDERATION = f"{API_GROUP}/federation"


def controller_name(federation: str) -> str:
    """The Service, the StatefulSet and the volume."""
    return f"{federation}-controller"


def bootstrap_secret(federation: str, group: str) -> str:
    return f"{federation}-{group}-bootstrap"


def token_secret(federation: str) -> str:
    return f"{federation}-api-token"

"""The documents of the controller's REST side, shared by those who serve and those who read them."""

from metisfl.api.documents import (
    FederationDocument,
    FederationState,
    GlobalModel,
    LearnerDocument,
    MetricValue,
    ModelDocument,
    OutputDocument,
    RoundDocument,
    RoundProgress,
)

__all__ = [
    "FederationDocument",
    "FederationState",
    "GlobalModel",
    "LearnerDocument",
    "MetricValue",
    "ModelDocument",
    "OutputDocument",
    "RoundDocument",
    "RoundProgress",
]

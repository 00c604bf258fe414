"""The documents of the controller's REST side, shared by those who serve and those who read them."""

from metisfl.api.documents import (
    EvaluatorDocument,
    FederationDocument,
    FederationState,
    GlobalModel,
    LearnerDocument,
    MetricValue,
    ModelDocument,
    OutputDocument,
    RoundDocument,
    RoundProgress,
    UpdateDocument,
)

__all__ = [
    "EvaluatorDocument",
    "FederationDocument",
    "FederationState",
    "GlobalModel",
    "LearnerDocument",
    "MetricValue",
    "ModelDocument",
    "OutputDocument",
    "RoundDocument",
    "RoundProgress",
    "UpdateDocument",
]

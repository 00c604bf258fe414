"""`.status` of a Federation: what the operator writes and the CRD's schema describes.

Small, and rebuilt from observation at any time: nothing is kept here that could not be found out again.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

_Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
_Generation = Annotated[int, Field(ge=0)]
_Text = Annotated[str, StringConstraints(max_length=253)]

MAX_MESSAGE_LENGTH = 32_768


class StatusModel(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )


class ConditionType(StrEnum):
    CONTROLLER_AVAILABLE = "ControllerAvailable"
    """The controller's pod runs and answers."""
    LEARNERS_READY = "LearnersReady"
    """All learners that should be there are connected."""
    PROGRESSING = "Progressing"
    """The federation is on its way: it starts, gathers learners, trains or evaluates. False when something is in the
    way, and once it has ended."""
    SECURED = "Secured"
    """Learners and controller prove to each other who they are, and nobody else can read along."""
    SUSPENDED = "Suspended"
    """spec.suspend is true: no pod runs, and the volume is kept."""
    MODEL_DELIVERED = "ModelDelivered"
    """What should be at spec.output is there; only with an output."""
    COMPLETE = "Complete"
    """The run has ended as it should; status.globalModel is its result."""
    FAILED = "Failed"
    """The run has ended before its time."""


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """One aspect of the federation's state, in the form all of Kubernetes uses."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """ControllerAvailable, LearnersReady, Progressing, Secured, Suspended, Complete, Failed; with an output
    ModelDelivered."""

    status: ConditionStatus
    """Whether it holds."""

    observed_generation: _Generation
    """metadata.generation of the spec this was judged by."""

    last_transition_time: datetime
    """When `status` last changed."""

    reason: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$", max_length=63)]
    """Why, in one documented word."""

    message: Annotated[str, StringConstraints(min_length=1, max_length=MAX_MESSAGE_LENGTH)]
    """Why, for people; never empty."""


class LearnersStatus(StatusModel):
    """How many learners there are."""

    desired: _Count = 0
    """Learners that should run now; zero while suspended and after the end."""

    ready: _Count = 0
    """Of these, connected to the controller."""

    participating: _Count = 0
    """Of these, taking part in the open round."""

    summary: Annotated[str, StringConstraints(max_length=40)] = "0/0"
    """ready/desired"""


class MetricStatus(StatusModel):
    """One metric of the newest evaluated model version, or of the published one."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """As the learners' `evaluate` names it."""

    value: Annotated[str, StringConstraints(max_length=32)]
    """Mean over the learners' held-out examples, as a decimal string."""


_Metrics = Annotated[
    list[MetricStatus],
    Field(
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    ),
]


class EvaluatorsStatus(StatusModel):
    """Learners of groups with role Evaluator, and what they have measured."""

    desired: _Count = 0
    """Evaluators that should run now; zero while suspended and after the end."""

    ready: _Count = 0
    """Of these, connected to the controller."""

    summary: Annotated[str, StringConstraints(max_length=40)] = "0/0"
    """ready/desired"""

    version: _Count | None = None
    """The model version that the metrics belong to."""

    metrics: _Metrics = []
    """Means over the evaluators' held-out examples; the one that termination.targetMetric names comes first."""

    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE_LENGTH)] | None = None
    """What is wrong with them, and which versions they have missed."""


class GlobalModelStatus(StatusModel):
    """The newest committed model version, or the published one."""

    version: _Count
    """The round that made it; 0 is the initial model."""

    sha256: Annotated[str, StringConstraints(max_length=64)]
    """Of its safetensors file."""

    location: Annotated[str, StringConstraints(max_length=1024)]
    """File name in the controller's volume."""


class FederationStatus(StatusModel):
    """What the operator last observed."""

    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """How the federation is doing. `kubectl wait --for=condition=Complete mfed/NAME` waits for its end."""

    observed_generation: _Generation | None = None
    """metadata.generation of the spec that was last acted upon."""

    current_round: _Count | None = None
    """The last committed round, or the open one; with protocol Asynchronous, the model version in the making."""

    learners: LearnersStatus | None = None
    evaluators: EvaluatorsStatus | None = None
    metrics: _Metrics = []
    """Newest metrics; the one that termination.targetMetric names comes first."""

    global_model: GlobalModelStatus | None = None
    start_time: datetime | None = None
    """When the controller first began a round."""

    completion_time: datetime | None = None
    """When the federation completed or failed."""

    endpoint: _Text | None = None
    """host:port of the controller's gRPC: as sites dial it where it is exposed, otherwise inside the cluster."""

"""What `/v1/federation`, `/v1/rounds` and `/v1/models` answer.

JSON keys are camelCase like the Federation object itself; times are RFC 3339 in UTC; unknown keys are ignored by
readers, so that an older command line can watch a newer controller.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class FederationState(StrEnum):
    """Where the controller stands. `Complete` and `Failed` are final."""

    WAITING_FOR_LEARNERS = "WaitingForLearners"
    INITIALISING = "Initialising"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    DELIVERING = "Delivering"
    COMPLETE = "Complete"
    FAILED = "Failed"

    @property
    def final(self) -> bool:
        return self in (FederationState.COMPLETE, FederationState.FAILED)


class _Document(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class MetricValue(_Document):
    """Example-weighted mean of one metric over the held-out data of the learners, or of the evaluators."""

    name: str
    value: float
    version: int = Field(description="The model version it belongs to")
    examples: int = Field(description="Held-out examples behind it")


class LearnerDocument(_Document):
    """One learner as the controller sees it."""

    id: str
    group: str
    connected: bool
    activity: str = Field(
        description="Idle, Downloading, Evaluating, Training, Uploading, Initialising; Lost, or Left when it said so"
    )
    progress: float = 0.0
    message: str = Field(default="", description="Why it is lost, was refused or failed; empty when all is well")
    train_examples: int = 0
    test_examples: int = 0
    contributions: int = Field(default=0, description="Committed rounds it took part in")
    last_seen: datetime | None = None


class EvaluatorDocument(LearnerDocument):
    """A learner of a group with role Evaluator; counts are of the present controller's time."""

    version: int | None = Field(default=None, description="The newest version it has evaluated")
    evaluations: int = 0
    missed: int = Field(default=0, description="Versions before that one that it was too busy or not there for")


class RoundProgress(_Document):
    """The round being worked on. Round r turns model version r - 1 into version r. With protocol Asynchronous it is the
    filling of one buffer: participants are the learners at work, quorum the size of the buffer."""

    number: int
    attempt: int = 1
    participants: int = 0
    contributions: int = 0
    quorum: int = 0
    started_at: datetime
    deadline_at: datetime | None = None


class GlobalModel(_Document):
    """A committed model version."""

    version: int
    sha256: str
    location: str = Field(description="File name in the controller's state directory")
    bytes: int


class OutputDocument(_Document):
    """How deliveries to spec.output stand."""

    url: str = Field(description="Folder of this federation's models")
    delivered: int | None = Field(default=None, description="Newest version that lies there")
    pending: int = Field(default=0, description="Versions that are to follow")
    message: str = Field(default="", description="Why the last attempt failed; empty when all is well")


class FederationDocument(_Document):
    """`GET /v1/federation`: everything a status display needs, in one read."""

    name: str
    uid: str
    configuration: str = Field(default="", description="Digest of the configuration that was read last")
    incarnation: int = Field(description="How often a controller has started on this state directory")
    state: FederationState
    reason: str = Field(default="", description="CamelCase word: why it waits, completed or failed")
    message: str = ""
    current_round: int = Field(default=0, description="Last committed round, plus one while a round is open")
    protocol: str = Field(default="Synchronous", description="Asynchronous counts model versions as rounds")
    max_rounds: int
    committed_rounds: int = 0
    round: RoundProgress | None = None
    learners: list[LearnerDocument] = Field(default=[], description="Those that train")
    desired_learners: int = 0
    evaluators: list[EvaluatorDocument] = []
    desired_evaluators: int = 0
    metrics: list[MetricValue] = Field(
        default=[],
        description="Of the newest evaluated version, or of the published one when complete",
    )
    evaluator_metrics: list[MetricValue] = Field(
        default=[],
        description="By evaluators, of the newest version they have evaluated, or of the published one when complete",
    )
    global_model: GlobalModel | None = Field(default=None, description="Newest version, or the published one")
    output: OutputDocument | None = Field(default=None, description="Deliveries, where the spec asks for them")
    codec: str = Field(default="Float32", description="How models travel: spec.transport.codec")
    bytes_sent: int = Field(default=0, description="Model payload to learners, as it travelled: encoded and packed")
    bytes_received: int = Field(default=0, description="Model payload from learners, likewise")
    start_time: datetime | None = None
    completion_time: datetime | None = None


class RoundDocument(_Document):
    """One committed round, as `GET /v1/rounds` lists them."""

    number: int
    version: int
    started_at: datetime
    ended_at: datetime
    attempts: int = 1
    participants: list[str]
    contributors: list[str]
    lost: list[str] = []
    updates: int = Field(default=0, description="Results in the version; a fast learner may have several")
    staleness: float = Field(
        default=0.0, description="Mean over them of the versions made between their own base and this one"
    )
    phase_seconds: dict[str, float] = Field(
        default={},
        description="train, aggregate, commit: wall-clock seconds of the round's phases",
    )
    train_metrics: dict[str, float] = Field(default={}, description="Example-weighted means of the learners' reports")
    metrics: list[MetricValue] = Field(default=[], description="Of the version this round made, once evaluated")
    evaluator_metrics: list[MetricValue] = Field(default=[], description="Of that version, by evaluators")
    bytes_received: int = 0
    bytes_sent: int = 0


class ModelDocument(_Document):
    """A stored model version, as `GET /v1/models` lists them."""

    version: int
    sha256: str
    bytes: int
    created_at: datetime
    metrics: list[MetricValue] = []
    evaluator_metrics: list[MetricValue] = []
    published: bool = False


class UpdateDocument(_Document):
    """One learner's update that is kept on disk, as `GET /v1/updates` lists them."""

    learner: str
    base_version: int = Field(description="The version that it was trained from")
    file: str = Field(description="Below `updates` in the controller's state directory")
    bytes: int
    created_at: datetime

"""The `Federation` object, API version metisfl.dev/v1alpha1, as pydantic models.

The CRD's OpenAPI schema is generated from these models (`metisfl.spec.crd`); attribute docstrings become what
`kubectl explain` prints. A value is accepted here only once it works: everything else of the design is refused with a
message. Rules across fields live in `metisfl.spec.rules`, once for Python and once as CEL.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from metisfl.spec.fields import (
    DecimalString,
    Entrypoint,
    GroupName,
    Image,
    LabelValue,
    MemoryQuantity,
    MetricName,
    ObjectName,
    Parameters,
    PodPart,
    PositiveFraction,
    Quantity,
    SignedDecimalString,
    SpecModel,
)
from metisfl.spec.rules import check

API_GROUP = "metisfl.dev"
API_VERSION = "v1alpha1"
KIND = "Federation"
PLURAL = "federations"

# Names of children add at most "-controller" and an ordinal; Kubernetes labels end at 63 characters.
MAX_NAME_LENGTH = 40


class InitialModelSource(StrEnum):
    FIRST_LEARNER = "FirstLearner"


class ProtocolType(StrEnum):
    SYNCHRONOUS = "Synchronous"


class SelectionType(StrEnum):
    ALL = "All"


class AggregationRule(StrEnum):
    FED_AVG = "FedAvg"


class Weighting(StrEnum):
    TRAINING_EXAMPLES = "TrainingExamples"


class CodecName(StrEnum):
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    INT8 = "Int8"
    TOPK = "TopK"


class CompressionType(StrEnum):
    NONE = "None"
    ZSTD = "Zstd"


class TlsMode(StrEnum):
    DISABLED = "Disabled"


class SourceRef(SpecModel):
    name: ObjectName
    """ConfigMap in the same namespace whose keys are Python files; mounted on every learner's PYTHONPATH."""


class LearnerSpec(SpecModel):
    """What every learner runs."""

    entrypoint: Entrypoint
    """Python class to run, as module:Class; in the learner image, or in sourceRef's ConfigMap."""

    source_ref: SourceRef | None = None
    """Code to mount beside what the image holds."""

    parameters: Parameters = {}
    """Free strings handed to the class; a group's own parameters win over these."""

    partitions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Into how many shares a data set is divided; each learner takes one. Fixed when the federation is created; by
    default the sum of all replicas at that time. Set it higher to leave room for more learners."""


class InitialModelSpec(SpecModel):
    """Where model version 0 comes from."""

    from_: Annotated[InitialModelSource, Field(alias="from")] = InitialModelSource.FIRST_LEARNER
    """FirstLearner: the first learner by name uploads the weights its class starts with."""


class TrainingSpec(SpecModel):
    """What a learner does with one training task."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Passes over the learner's own training examples."""

    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Examples per optimiser step."""

    learning_rate: DecimalString = "0.05"
    """Step size, as a decimal string."""


class EvaluationSpec(SpecModel):
    """How often learners evaluate the global model on their held-out examples."""

    every_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Evaluate each n-th model version; the last version always is."""


class SynchronousSpec(SpecModel):
    """All participants train from the same version; the round closes when all have reported."""

    quorum_percent: Annotated[int, Field(ge=1, le=100)] = 100
    """Share of a round's participants, in percent and rounded up, whose updates make the round valid when others are
    lost or late."""

    round_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    """After this long the round closes with what has arrived, if that is a quorum; otherwise the missing learners are
    asked again, and after three such attempts the federation fails."""


class ProtocolSpec(SpecModel):
    """How rounds are run. Only the member that `type` names may be set."""

    type: ProtocolType = ProtocolType.SYNCHRONOUS
    """Synchronous: rounds in which all participants start from the same version."""

    synchronous: SynchronousSpec | None = None
    """For type Synchronous."""

    @property
    def synchronous_or_default(self) -> SynchronousSpec:
        return self.synchronous or SynchronousSpec()


class SelectionSpec(SpecModel):
    """Which learners take part in a round."""

    type: SelectionType = SelectionType.ALL
    """All: every connected learner."""

    min_learners: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """A round starts only when this many learners are ready; by default as many as the first quorum needs."""


class AggregationSpec(SpecModel):
    """How updates become the next global model."""

    rule: AggregationRule = AggregationRule.FED_AVG
    """FedAvg: the weighted mean of the participants' models (arXiv 1602.05629)."""

    weighting: Weighting = Weighting.TRAINING_EXAMPLES
    """TrainingExamples: each model counts by the examples it was trained on."""

    deterministic: bool = False
    """Add the updates in the learners' order instead of that of their arrival, so that the same updates always make the
    same model, bit for bit. Updates that arrive out of order wait, on disk when others need their place in memory."""


class TopKSpec(SpecModel):
    """What codec TopK keeps of an update."""

    fraction: PositiveFraction = "0.1"
    """Share of the values that is sent, above 0 and at most 1, as a decimal string; 0.01 suits large models."""


class CompressionSpec(SpecModel):
    """Lossless compression of what the codec makes, piece by piece."""

    type: CompressionType = CompressionType.NONE
    """None: as it is. Zstd: with Zstandard, which pays off on slow links and for models with many equal values."""

    level: Annotated[int, Field(ge=1, le=19)] | None = None
    """For type Zstd: higher takes longer and packs tighter. Default: 3."""

    @property
    def level_or_default(self) -> int:
        return self.level or 3


class TransportSpec(SpecModel):
    """How models travel."""

    codec: CodecName = CodecName.FLOAT32
    """Float32: tensors in their own dtype, without loss. The others narrow trainable floating-point tensors, and
    learners then send what their training changed. BFloat16, Float16: 16 bits a value. Int8: 8 bits and a scale for
    each 64 values. TopK: only the largest changes, the rest is carried over to the next round; models go down in
    Float32."""

    top_k: Annotated[TopKSpec | None, Field(alias="topK")] = None
    """For codec TopK."""

    compression: CompressionSpec = CompressionSpec()

    @property
    def top_k_or_default(self) -> TopKSpec:
        return self.top_k or TopKSpec()


class TargetMetricSpec(SpecModel):
    """Ends the federation when a model version reaches it. Set exactly one bound."""

    name: MetricName
    """As the learner's `evaluate` names it."""

    at_least: SignedDecimalString | None = None
    """For metrics that grow as the model gets better, such as accuracy."""

    at_most: SignedDecimalString | None = None
    """For metrics that shrink as the model gets better, such as loss."""


class TerminationSpec(SpecModel):
    """When to stop; the first that applies."""

    max_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Committed rounds after which the federation is complete."""

    max_duration_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Wall-clock time since the first round began. The round under way then is abandoned."""

    target_metric: TargetMetricSpec | None = None


class LearnerGroup(SpecModel):
    """Learners of one site, hardware kind or data volume."""

    name: GroupName
    """Learners are called <group>-<ordinal>."""

    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """How many learners; zero keeps the group's share of the data for later."""

    image: Image | None = None
    """Learner image; by default the one the operator was installed with."""

    parameters: Parameters = {}
    """On top of spec.learner.parameters."""

    resources: PodPart | None = None
    """Requests and limits of each learner's container, as in a pod."""

    volumes: Annotated[list[PodPart], Field(max_length=32)] = []
    """Volumes of each learner's pod, as in a pod: the site's data."""

    volume_mounts: Annotated[list[PodPart], Field(max_length=32)] = []
    """Where the container sees those volumes, as in a pod."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] = {}
    """Labels of the nodes that may run these learners."""


class StorageSpec(SpecModel):
    """The volume that holds checkpoints and history."""

    size: Quantity = "1Gi"
    """Room for a few versions of the model and the history; it can grow where the storage class allows it."""

    storage_class_name: ObjectName | None = None
    """By default the cluster's default class."""


class ControllerSpec(SpecModel):
    """The controller's pod."""

    image: Image | None = None
    """Controller image; by default the one the operator was installed with."""

    resources: PodPart | None = None
    """Requests and limits of the controller's container, as in a pod."""

    storage: StorageSpec = StorageSpec()
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Aggregation threads; by default as many as the pod's CPU limit allows."""

    memory_budget: MemoryQuantity | None = None
    """Memory for models: sums, uploads on their way in, the model that is served and the next one. What does not fit
    goes to files on the controller's volume, so that a model may be larger than the budget. The process needs about
    300Mi beside it. By default 60 percent of the pod's memory limit, or of the machine's memory."""


class TlsSpec(SpecModel):
    """Encryption between learners and controller."""

    mode: TlsMode = TlsMode.DISABLED
    """Disabled: learners and controller talk in clear text."""


class SecuritySpec(SpecModel):
    """How the federation is protected."""

    tls: TlsSpec = TlsSpec()


class FederationSpec(SpecModel):
    """A federation: who trains what, how rounds run, and when it ends."""

    learner: LearnerSpec
    initial_model: InitialModelSpec = InitialModelSpec()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    protocol: ProtocolSpec = ProtocolSpec()
    selection: SelectionSpec = SelectionSpec()
    aggregation: AggregationSpec = AggregationSpec()
    transport: TransportSpec = TransportSpec()
    termination: TerminationSpec = TerminationSpec()
    learner_groups: Annotated[
        list[LearnerGroup],
        Field(
            min_length=1,
            max_length=100,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """Where learners run, and how many."""

    controller: ControllerSpec = ControllerSpec()
    security: SecuritySpec = SecuritySpec()

    suspend: bool = False
    """Scale everything to zero and keep the volume; false again goes on at the same round."""

    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Remove the controller's pod and Services this long after the end; the Federation and its volume stay."""

    @property
    def total_replicas(self) -> int:
        return sum(group.replicas for group in self.learner_groups)

    @property
    def partition_count(self) -> int:
        """Shares of the data: as set, or one per replica."""
        return self.learner.partitions or self.total_replicas


class ObjectMeta(BaseModel):
    """The part of metadata this project reads; the rest is kept as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None


class Federation(BaseModel):
    """One Federation object, as in a YAML file or from the API server."""

    model_config = ConfigDict(alias_generator=None, extra="ignore", frozen=True, populate_by_name=True)

    api_version: Annotated[Literal["metisfl.dev/v1alpha1"], Field(alias="apiVersion")]
    kind: Literal["Federation"]
    metadata: ObjectMeta
    spec: FederationSpec

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        check(self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return self

"""The `Federation` object, API version metisfl.dev/v1alpha1, as pydantic models.

The CRD's OpenAPI schema is generated from these models (`metisfl.spec.crd`); attribute docstrings become what
`kubectl explain` prints. A value is accepted here only once it works: everything else of the design is refused with a
message. Each part of `spec` has a file of its own, with the rules across its fields; `metisfl.spec.rules` gathers them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from metisfl.spec.aggregation import AggregationSpec
from metisfl.spec.controller import ControllerSpec
from metisfl.spec.fields import SpecModel
from metisfl.spec.groups import LearnerGroup
from metisfl.spec.learner import InitialModelSpec, LearnerSpec
from metisfl.spec.output import OutputSpec
from metisfl.spec.protocol import ProtocolSpec
from metisfl.spec.rules import check
from metisfl.spec.security import SecuritySpec
from metisfl.spec.selection import SelectionSpec
from metisfl.spec.termination import TerminationSpec
from metisfl.spec.training import EvaluationSpec, TrainingSpec
from metisfl.spec.transport import TransportSpec

API_GROUP = "metisfl.dev"
API_VERSION = "v1alpha1"
KIND = "Federation"
MANAGER = "metisfl.dev/operator"
MANAGER_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
PLURAL = "federations"

# Names of children add at most "-controller" and an ordinal; Kubernetes labels end at 63 characters.
MAX_NAME_LENGTH = 40


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
    output: OutputSpec | None = None

    suspend: bool = False
    """Scale everything to zero and keep the volume; false again goes on at the same round. A federation that is created
    suspended, as queues such as Kueue do it, starts no pod until then."""

    managed_by: Annotated[str, StringConstraints(pattern=MANAGER_PATTERN, max_length=63)] = MANAGER
    """Who acts on this object. Any other name than the default, such as kueue.x-k8s.io/multikueue, makes this operator
    leave it alone, its status included."""

    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Remove the controller's pod and Services this long after the end; the Federation and its volume stay."""

    @property
    def training_groups(self) -> list[LearnerGroup]:
        return [group for group in self.learner_groups if not group.evaluates_only]

    @property
    def evaluator_groups(self) -> list[LearnerGroup]:
        return [group for group in self.learner_groups if group.evaluates_only]

    @property
    def total_learners(self) -> int:
        """The most learners there may be that train, in pods and outside of the cluster."""
        return sum(group.size for group in self.training_groups)

    @property
    def awaited_learners(self) -> int:
        """The learners that are counted upon for training: those with pods, and one of each external group."""
        return sum(group.awaited for group in self.training_groups)

    @property
    def awaited_evaluators(self) -> int:
        """The evaluators that should be there, likewise."""
        return sum(group.awaited for group in self.evaluator_groups)

    @property
    def partition_count(self) -> int:
        """Shares of the data: as set, or one for each learner there may be."""
        return self.learner.partitions or self.total_learners


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

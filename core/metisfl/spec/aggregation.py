"""`spec.aggregation`: how updates become the next global model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from metisfl.spec import robust, server_optimizer
from metisfl.spec.fields import DecimalBelowOne, PositiveDecimalString, SpecModel
from metisfl.spec.robust import (
    BulyanSpec,
    CenteredClipSpec,
    GeometricMedianSpec,
    KrumSpec,
    MultiKrumSpec,
    TrimmedMeanSpec,
)
from metisfl.spec.rule import Json, Rule
from metisfl.spec.server_optimizer import ServerOptimizerSpec


class AggregationRule(StrEnum):
    FED_AVG = "FedAvg"
    FED_STRIDE = "FedStride"
    FED_NOVA = "FedNova"
    FED_REC = "FedRec"
    SCAFFOLD = "Scaffold"
    MEDIAN = "Median"
    TRIMMED_MEAN = "TrimmedMean"
    KRUM = "Krum"
    MULTI_KRUM = "MultiKrum"
    BULYAN = "Bulyan"
    GEOMETRIC_MEDIAN = "GeometricMedian"
    CENTERED_CLIP = "CenteredClip"


class Weighting(StrEnum):
    TRAINING_EXAMPLES = "TrainingExamples"
    COMPLETED_BATCHES = "CompletedBatches"
    PARTICIPANTS = "Participants"


class FedStrideSpec(SpecModel):
    """How FedStride bounds memory."""

    models: Annotated[int, Field(ge=1, le=64)] = 1
    """How many models are in memory and folded in one pass, at most."""


class FedNovaSpec(SpecModel):
    """What FedNova must know of local training."""

    local_momentum: DecimalBelowOne = "0"
    """Momentum of the learners' SGD, 0 to below 1."""


class FedRecSpec(SpecModel):
    """How FedRec keeps its sums exact."""

    recompute_every: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """After so many replacements the sums are made anew from the learners' last models; after fewer, when models have
    become smaller. Deterministic aggregation does so in every round."""


class AggregationSpec(SpecModel):
    """How updates become the next global model."""

    rule: AggregationRule = AggregationRule.FED_AVG
    """FedAvg: the weighted mean of the participants' models (arXiv 1602.05629). FedStride: the same with a bound on the
    models in memory. FedNova: the mean of directions, for learners that take different numbers of local steps
    (arXiv 2007.07481). FedRec: the mean of every learner's most recent model, of whichever round; the models are kept
    on the controller's volume. Scaffold: FedAvg whose learners correct their steps by control variates, against client
    drift (arXiv 1910.06378); needs learners that can. Against attackers: Median and TrimmedMean of each parameter
    (arXiv 1803.01498); Krum and MultiKrum, the updates closest to the others (NeurIPS 2017), and Bulyan upon them
    (arXiv 1802.07927); GeometricMedian (arXiv 1912.13445); CenteredClip (arXiv 2012.10333)."""

    fed_stride: FedStrideSpec | None = None
    """For rule FedStride."""

    fed_nova: FedNovaSpec | None = None
    """For rule FedNova."""

    fed_rec: FedRecSpec | None = None
    """For rule FedRec."""

    trimmed_mean: TrimmedMeanSpec | None = None
    """For rule TrimmedMean."""

    krum: KrumSpec | None = None
    """For rule Krum."""

    multi_krum: MultiKrumSpec | None = None
    """For rule MultiKrum."""

    bulyan: BulyanSpec | None = None
    """For rule Bulyan."""

    geometric_median: GeometricMedianSpec | None = None
    """For rule GeometricMedian."""

    centered_clip: CenteredClipSpec | None = None
    """For rule CenteredClip."""

    weighting: Weighting = Weighting.TRAINING_EXAMPLES
    """TrainingExamples: each update counts by the size of the data it was trained on. CompletedBatches: by the batches
    its learner trained on. Participants: all count the same. Median, TrimmedMean, Krum, MultiKrum, Bulyan and
    CenteredClip count them the same in any case."""

    deterministic: bool = False
    """Add the updates in the learners' order instead of that of their arrival, so that the same updates always make the
    same model, bit for bit. Updates that arrive out of order wait, on disk when others need their place in memory."""

    server_optimizer: ServerOptimizerSpec = ServerOptimizerSpec()

    clip_norm: PositiveDecimalString | None = None
    """Bound on each update's L2 norm over the trainable floating-point tensors: a longer one is scaled down to it
    before it is added. By default updates are not clipped."""

    keep_updates: Annotated[int, Field(ge=0, le=100)] = 0
    """How many of each learner's last updates are kept on the controller's volume for people to look at, each as large
    as the model. When the disk is full they are not, and rounds go on."""

    @property
    def updates_needed(self) -> int:
        """Without as many updates in a round there is no result."""
        return robust.updates_needed(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    @property
    def fed_stride_or_default(self) -> FedStrideSpec:
        return self.fed_stride or FedStrideSpec()

    @property
    def fed_rec_or_default(self) -> FedRecSpec:
        return self.fed_rec or FedRecSpec()

    @property
    def fed_nova_or_default(self) -> FedNovaSpec:
        return self.fed_nova or FedNovaSpec()


_MEMBERS = {
    "fedStride": "FedStride",
    "fedNova": "FedNova",
    "fedRec": "FedRec",
    "trimmedMean": "TrimmedMean",
    "krum": "Krum",
    "multiKrum": "MultiKrum",
    "bulyan": "Bulyan",
    "geometricMedian": "GeometricMedian",
    "centeredClip": "CenteredClip",
}
"""Which rule each member is for."""


def _member_rule(member: str, rule: str) -> Rule:
    def holds(aggregation: Json) -> bool:
        return member not in aggregation or aggregation.get("rule") == rule

    return Rule(
        path=("spec", "aggregation"),
        message=f"{member} is for rule {rule} only",
        holds=holds,
        cel=f"!has(self.{member}) || self.rule == '{rule}'",
    )


RULES: tuple[Rule, ...] = (
    *(_member_rule(member, rule) for member, rule in _MEMBERS.items()),
    *server_optimizer.RULES,
    *robust.RULES,
)

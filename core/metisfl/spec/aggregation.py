"""`spec.aggregation`: how updates become the next global model."""

from __future__ import annotations

from enum import StrEnum

from metisfl.spec.fields import SpecModel


class AggregationRule(StrEnum):
    FED_AVG = "FedAvg"


class Weighting(StrEnum):
    TRAINING_EXAMPLES = "TrainingExamples"
    COMPLETED_BATCHES = "CompletedBatches"
    PARTICIPANTS = "Participants"


class AggregationSpec(SpecModel):
    """How updates become the next global model."""

    rule: AggregationRule = AggregationRule.FED_AVG
    """FedAvg: the weighted mean of the participants' models (arXiv 1602.05629)."""

    weighting: Weighting = Weighting.TRAINING_EXAMPLES
    """TrainingExamples: each update counts by the size of the data it was trained on. CompletedBatches: by the batches
    its learner trained on. Participants: all count the same."""

    deterministic: bool = False
    """Add the updates in the learners' order instead of that of their arrival, so that the same updates always make the
    same model, bit for bit. Updates that arrive out of order wait, on disk when others need their place in memory."""

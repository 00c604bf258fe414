"""The controller's own reasons: in its documents, and in the conditions Progressing, Complete and Failed."""

from __future__ import annotations

from enum import StrEnum


class RunReason(StrEnum):
    """Why a run waits or has ended."""

    LEARNERS_MISSING = "LearnersMissing"
    """Fewer learners are ready than a round needs."""
    MAX_ROUNDS_REACHED = "MaxRoundsReached"
    """All of termination.maxRounds are committed."""
    MAX_DURATION_REACHED = "MaxDurationReached"
    """termination.maxDurationSeconds have passed since the first round began."""
    TARGET_METRIC_REACHED = "TargetMetricReached"
    """Model versions have met termination.targetMetric."""
    PLATEAU = "Plateau"
    """termination.plateau: the metric has not become better for so many versions."""
    QUORUM_NOT_REACHED = "QuorumNotReached"
    """Too few of a round's learners delivered, in as many attempts as the protocol makes."""
    NO_UPDATES = "NoUpdates"
    """No learner of an asynchronous protocol delivered in as many deadlines as it allows."""
    TOO_FEW_LEARNERS = "TooFewLearners"
    """termination.tooFewLearnersSeconds have passed with fewer learners than a round needs."""
    INITIAL_MODEL_FAILED = "InitialModelFailed"
    """No learner could hand over initial weights."""
    AGGREGATION_FAILED = "AggregationFailed"
    """The updates of a round could not be combined into a model."""

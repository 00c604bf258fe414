"""The learner: trains next to the data and dials out to the controller."""

from metisfl_learner.learner import (
    Capability,
    Evaluation,
    Learner,
    LearnerContext,
    ParameterError,
    PartitionPlace,
    TaskCancelled,
    TrainingResult,
    TrainingTask,
    Weights,
)

__all__ = [
    "Capability",
    "Evaluation",
    "Learner",
    "LearnerContext",
    "ParameterError",
    "PartitionPlace",
    "TaskCancelled",
    "TrainingResult",
    "TrainingTask",
    "Weights",
]

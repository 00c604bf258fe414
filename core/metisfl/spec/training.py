"""`spec.training` and `spec.evaluation`: what a learner does with a task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import DecimalString, SpecModel


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

"""`spec.training` and `spec.evaluation`: what a learner does with a task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import DecimalString, SpecModel
from metisfl.spec.rule import Json, Rule


class TrainingSpec(SpecModel):
    """What a learner does with one training task."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Passes over the learner's own training examples. Default: 1, unless there are steps."""

    steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Batches to train on instead of whole epochs, the same number at every learner."""

    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Examples per optimiser step."""

    learning_rate: DecimalString = "0.05"
    """Step size, as a decimal string."""

    proximal_mu: DecimalString = "0"
    """FedProx (arXiv 1812.06127): how strongly training is held near the global model it began with; adds
    mu / 2 · |w - w_global|² to each learner's loss. 0 adds nothing."""

    @property
    def epochs_or_default(self) -> int:
        return self.epochs or 1


class EvaluationSpec(SpecModel):
    """How often learners evaluate the global model on their held-out examples. Learner groups with role Evaluator
    evaluate every version."""

    every_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Evaluate each n-th model version; the last version always is. With protocol Asynchronous all learners evaluate
    the same version, each when it is done with its task, and versions made meanwhile are passed over."""

    evaluator_wait_seconds: Annotated[int, Field(ge=0, le=86_400)] = 60
    """How long the end of the federation waits for evaluators to report the last version."""


def _epochs_or_steps(training: Json) -> bool:
    return "epochs" not in training or "steps" not in training


RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec", "training"),
        message="set epochs or steps, not both",
        holds=_epochs_or_steps,
        cel="!has(self.epochs) || !has(self.steps)",
    ),
)

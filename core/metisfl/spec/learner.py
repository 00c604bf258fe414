"""`spec.learner` and `spec.initialModel`: what every learner runs, and where version 0 comes from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import Entrypoint, ObjectName, Parameters, SpecModel


class InitialModelSource(StrEnum):
    FIRST_LEARNER = "FirstLearner"


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
    default the sum of all groups' replicas and maxLearners at that time. Set it higher to leave room for more."""


class InitialModelSpec(SpecModel):
    """Where model version 0 comes from."""

    from_: Annotated[InitialModelSource, Field(alias="from")] = InitialModelSource.FIRST_LEARNER
    """FirstLearner: the first learner by name uploads the weights its class starts with."""

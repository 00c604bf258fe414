"""`spec.selection`: who takes part in a round."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from metisfl.spec.fields import SpecModel


class SelectionType(StrEnum):
    ALL = "All"


class SelectionSpec(SpecModel):
    """Which learners take part in a round."""

    type: SelectionType = SelectionType.ALL
    """All: every connected learner."""

    min_learners: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """A round starts only when this many learners are ready; by default as many as the first quorum needs."""

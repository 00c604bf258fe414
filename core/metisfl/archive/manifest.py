"""What an archive says about itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

FORMAT = 1
"""Counts up when a reader of before would go wrong with an archive; that includes the tables of the history."""

MANIFEST = "metisfl-archive.json"
HISTORY = "history.sqlite"
MODELS = "models"

MAX_MANIFEST_BYTES = 4 << 20

_Count = Annotated[int, Field(ge=0, lt=1 << 60)]
_MemberName = Annotated[str, StringConstraints(pattern=r"^(history\.sqlite|models/v[0-9]{6,12}(-rule)?\.safetensors)$")]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=253)]


def model_file(version: int) -> str:
    """A version's file in `MODELS`. Names are made of numbers, never read from anywhere: so none leads elsewhere."""
    return f"v{version:06d}.safetensors"


def rule_state_file(version: int) -> str:
    """Of what the aggregation rule keeps with a version."""
    return f"v{version:06d}-rule.safetensors"


class ArchiveError(Exception):
    """A file that is no archive, or a damaged one; nothing was made of it."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Document):
    """A file of the archive, by its place in the state directory."""

    name: _MemberName
    bytes: _Count
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Plan(_Document):
    """Which shares of the data are whose: `metisfl.partitions.Shares`, as the operator keeps them."""

    count: Annotated[int, Field(ge=1)]
    offsets: dict[str, _Count]
    sizes: dict[str, _Count]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.offsets.keys() != self.sizes.keys():
            raise ValueError("offsets and sizes must be of the same groups")
        return self


class Manifest(_Document):
    """The first member. The others follow in the order of `members`."""

    format: int = FORMAT
    release: _Text
    """Of MetisFL, which wrote it."""
    created: datetime
    federation: _Text
    uid: _Text
    version: _Count
    """The newest of the model, which is also the number of committed rounds."""
    plan: Plan
    members: list[Member]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [member.name for member in self.members]
        if names.count(HISTORY) != 1 or len(set(names)) != len(names):
            raise ValueError(f"members: {HISTORY} once, and each model once, were expected")
        return self

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """Raises ArchiveError, which tells an archive of another format from one that is damaged."""
        try:
            found = _Format.model_validate_json(text).format
            if found != FORMAT:
                raise ArchiveError(
                    f"its format is {found}, and this release reads {FORMAT}: use the release that wrote it"
                )
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or MANIFEST
            raise ArchiveError(f"its manifest cannot be read: {where}: {first['msg']}") from error


class _Format(BaseModel):
    format: int

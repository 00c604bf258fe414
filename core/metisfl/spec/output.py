"""`spec.output`: where models go, beside the controller's volume."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from metisfl.spec.fields import ObjectName, SpecModel

OutputUrl = Annotated[
    str, StringConstraints(pattern=r"^(s3|s3a|gs|az|abfs|abfss|file)://[A-Za-z0-9/][^\s?#]{0,1000}$", max_length=1024)
]


class OutputVersions(StrEnum):
    FINAL = "Final"
    ALL = "All"


class SecretRef(SpecModel):
    name: ObjectName
    """Secret in the same namespace; its keys become environment variables of the controller, such as
    AWS_ACCESS_KEY_ID."""


class OutputSpec(SpecModel):
    """Copies of models outside of the controller's volume, with a lineage file that tells how each was made."""

    url: OutputUrl
    """s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix, abfss://container@account/prefix or
    file:///path; models go to a folder named after the federation below it."""

    versions: OutputVersions = OutputVersions.FINAL
    """Final: the published model, at the end. All: each committed version as well, unless the next ones overtake it."""

    secret_ref: SecretRef | None = None
    """Credentials; without it, those that the controller's pod has by other means."""

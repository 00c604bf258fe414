"""`spec.output`: where models go, beside the controller's volume."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from metisfl.spec.fields import ObjectName, SpecModel

# With an @ they would hold credentials, which nobody would use and everybody could read.
_BUCKET = r"(s3|s3a|gs|az|file)://[A-Za-z0-9/][^\s?#@]{0,1000}"
_LAKE = r"abfss?://[A-Za-z0-9-]{1,63}@[A-Za-z0-9.-]{1,253}(/[^\s?#@]{0,700})?"

OutputUrl = Annotated[str, StringConstraints(pattern=rf"^({_BUCKET}|{_LAKE})$", max_length=1024)]


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
    """s3://bucket/prefix, gs://bucket/prefix, az://container/prefix (the account's name is in the Secret),
    abfss://container@account.dfs.core.windows.net/prefix or file:///path; models go to a folder named after the
    federation below it. Credentials belong in the Secret."""

    versions: OutputVersions = OutputVersions.FINAL
    """Final: the published model, at the end. All: each committed version as well, unless the next ones overtake it."""

    secret_ref: SecretRef | None = None
    """Credentials; without it, those that the controller's pod has by other means."""

"""What `/v1/audit` answers."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class AuditDocument(BaseModel):
    """One entry of the audit trail, as `GET /v1/audit` lists them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    time: datetime
    action: str = Field(description="Enrolled, Renewed, EnrolmentRefused, Joined, JoinRefused, CallRefused or Revoked")
    learner: str = Field(description="Whom it is about, or who asked; empty when nobody knows")
    peer: str = Field(description="Address that the connection came from")
    detail: str = ""

"""`spec.security`: how a federation is protected."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from metisfl.spec.fields import SpecModel
from metisfl.spec.rule import Json, Rule

LEARNER_ID_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?-[0-9]{1,5}$"

LearnerId = Annotated[str, StringConstraints(pattern=LEARNER_ID_PATTERN, min_length=3, max_length=26)]


class TlsMode(StrEnum):
    AUTO = "Auto"
    DISABLED = "Disabled"


class TlsSpec(SpecModel):
    """Mutual TLS between learners and controller."""

    mode: TlsMode = TlsMode.AUTO
    """Auto: the operator makes an authority for this federation, and every learner gets a certificate of its own.
    Disabled: learners and controller talk in clear text, and whoever reaches the controller may join."""

    certificate_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 604_800
    """Lifetime of the controller's and the learners' certificates; each is renewed when two thirds of it are over."""

    bootstrap_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 2_592_000
    """Lifetime of a group's bootstrap certificate, with which new learners enrol; for so long a bundle is good."""

    @property
    def enabled(self) -> bool:
        return self.mode is not TlsMode.DISABLED


class SecuritySpec(SpecModel):
    """How the federation is protected."""

    tls: TlsSpec = TlsSpec()

    revoked: Annotated[
        list[LearnerId], Field(max_length=1000, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Learners, <group>-<ordinal>, that are shut out at once. Their certificates stay worthless when they are taken off
    the list again; they may then enrol anew."""


def _revoked_once(security: Json) -> bool:
    revoked = security.get("revoked", [])
    return len(revoked) == len(set(revoked))


RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec", "security"),
        message="revoked must name each learner once",
        holds=_revoked_once,
        # The API server refuses duplicates itself: the list's type is set.
        cel="",
    ),
)

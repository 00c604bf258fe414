"""`spec.security`: how a federation is protected."""

from __future__ import annotations

from enum import StrEnum

from metisfl.spec.fields import SpecModel


class TlsMode(StrEnum):
    DISABLED = "Disabled"


class TlsSpec(SpecModel):
    """Encryption between learners and controller."""

    mode: TlsMode = TlsMode.DISABLED
    """Disabled: learners and controller talk in clear text."""


class SecuritySpec(SpecModel):
    """How the federation is protected."""

    tls: TlsSpec = TlsSpec()

"""Why a federation ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conclusion:
    """`reason` is one documented CamelCase word, `message` a sentence for people."""

    reason: str
    message: str
    complete: bool = True
    """False: the federation has failed."""

"""How operator and controller name one state of the controller's configuration."""

from __future__ import annotations

import hashlib


def configuration_digest(federation: str, partition_plan: str) -> str:
    """Of the texts of the two files, in hexadecimal: what the controller reports is what the operator wrote."""
    content = hashlib.sha256(federation.encode())
    content.update(b"\0")
    content.update(partition_plan.encode())
    return content.hexdigest()[:16]

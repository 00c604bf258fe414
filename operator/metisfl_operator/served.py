"""Which version of an API group a server has, for kinds that moved between versions while clusters did not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ASK_AGAIN_SECONDS = 300.0
"""What a server lacks may be installed later."""

# By plural: the group, and the versions that have it in the form we write, newest first.
MOVED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "poddisruptionbudgets": ("policy", ("v1", "v1beta1")),
    "certificates": ("cert-manager.io", ("v1",)),
    "tlsroutes": ("gateway.networking.k8s.io", ("v1", "v1alpha3", "v1alpha2")),
}


@dataclass
class ServedVersions:
    """`resources` answers the plurals of a group and version, such as policy/v1; empty when the server has none."""

    resources: Callable[[str], set[str]]
    monotonic: Callable[[], float] = time.monotonic
    _found: dict[str, tuple[str | None, float]] = field(default_factory=dict)

    def of(self, plural: str) -> str | None:
        """group/version to use for a kind of `MOVED`; None when the server does not have it."""
        version, asked = self._found.get(plural, (None, float("-inf")))
        if version is None and self.monotonic() - asked >= ASK_AGAIN_SECONDS:
            group, versions = MOVED[plural]
            offered = (f"{group}/{each}" for each in versions)
            version = next((each for each in offered if plural in self.resources(each)), None)
            self._found[plural] = version, self.monotonic()
        return version


def plurals(answer: Mapping[str, Any]) -> set[str]:
    """Of an APIResourceList."""
    return {str(resource["name"]) for resource in answer.get("resources", [])}

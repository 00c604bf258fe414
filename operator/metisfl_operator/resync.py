"""The second leg: a federation is looked at every few seconds also when no event says that something happened.

Progress inside a controller makes no Kubernetes event, and a watch can die without a word. kopf's timers and daemons
would put a finalizer on every Federation; a task over kopf's index does not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from metisfl.spec import KIND
from metisfl.spec.status import Condition, ConditionStatus, ConditionType
from metisfl_operator.kube import Kube, KubeError
from metisfl_operator.pokes import Key
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.reconcile.reconciler import ours
from metisfl_operator.reconcile.status import read_status
from metisfl_operator.resources.metadata import Manifest

log = logging.getLogger(__name__)

ACTIVE_SECONDS = 5.0
QUIET_SECONDS = 60.0
AUDIT_SECONDS = 60.0
STALE_SECONDS = 180.0
"""How long the watch may lag behind the API server before the operator is called unhealthy."""


# In the order in which they are looked for.
_ENDS = {
    "failed": ConditionType.FAILED,
    "complete": ConditionType.COMPLETE,
    "suspended": ConditionType.SUSPENDED,
}
STATES = (*_ENDS, "progressing", "waiting")


@dataclass(frozen=True)
class Seen:
    """What the watch last said of a Federation."""

    generation: int
    quiet: bool
    """Suspended, ended, or waiting for its spec to be mended: nothing changes there by itself."""
    state: str = "waiting"
    """One of STATES."""


def seen(manifest: Mapping[str, Any]) -> Seen:
    generation = manifest["metadata"].get("generation", 0)
    status = read_status(dict(manifest))
    current = [c for c in status.conditions if c.observed_generation == generation]
    ended = set(_ENDS.values())
    quiet = not ours(dict(manifest)) or any(
        (c.type in ended and c.status == ConditionStatus.TRUE) or c.reason == Reason.INVALID_SPEC for c in current
    )
    return Seen(generation, quiet, _state(status.conditions))


def _state(conditions: Iterable[Condition]) -> str:
    true = {condition.type for condition in conditions if condition.status == ConditionStatus.TRUE}
    found = next((state for state, kind in _ENDS.items() if kind in true), None)
    return found or ("progressing" if ConditionType.PROGRESSING in true else "waiting")


@dataclass
class Resync:
    """Pokes federations in `index`, and compares it with the API server itself from time to time."""

    index: Callable[[], Mapping[Key, Seen]]
    poke: Callable[[Key], None]
    kube: Kube
    namespaces: tuple[str, ...]
    monotonic: Callable[[], float] = time.monotonic
    _poked: dict[Key, float] = field(default_factory=dict, init=False)
    _behind_since: float | None = field(default=None, init=False)

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._every(ACTIVE_SECONDS, self._walk), self._every(AUDIT_SECONDS, self._audit_in_thread))

    def walk(self) -> None:
        """Poke what is active, and what has not been looked at for a while."""
        now, index = self.monotonic(), self.index()
        for key, entry in index.items():
            if not entry.quiet or now - self._poked.get(key, float("-inf")) >= QUIET_SECONDS:
                self._poked[key] = now
                self.poke(key)
        self._poked = {key: at for key, at in self._poked.items() if key in index}

    def audit(self, listed: Iterable[Manifest]) -> None:
        """Note since when the watch has not told what the API server holds."""
        index = self.index()
        behind = [
            key
            for manifest in listed
            if (key := (manifest["metadata"]["namespace"], manifest["metadata"]["name"])) not in index
            or index[key].generation < manifest["metadata"].get("generation", 0)
        ]
        if not behind:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self.monotonic()
            log.warning("the watch is behind the API server for %s", ", ".join("/".join(key) for key in behind[:5]))

    def lag_seconds(self) -> float:
        """For how long the watch has been behind; 0 when it is not."""
        return 0.0 if self._behind_since is None else self.monotonic() - self._behind_since

    async def _walk(self) -> None:
        self.walk()

    async def _audit_in_thread(self) -> None:
        try:
            listed = await asyncio.to_thread(self._list)
        except KubeError as error:
            log.warning("Federations cannot be listed: %s", error)
            return
        self.audit(listed)

    def _list(self) -> list[Manifest]:
        return [manifest for namespace in self.namespaces or ("",) for manifest in self.kube.list(KIND, namespace)]

    async def _every(self, seconds: float, step: Callable[[], Any]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await step()

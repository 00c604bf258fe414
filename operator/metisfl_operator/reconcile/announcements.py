"""Tells controllers which pods there are: each of them may enrol for its learner's certificate, once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from metisfl_operator import names
from metisfl_operator.progress import ProgressError, ProgressSource
from metisfl_operator.reconcile import pods
from metisfl_operator.reconcile.observe import Observed
from metisfl_operator.resources.metadata import Manifest, Owner


def instances(owner: Owner, observed: Observed) -> dict[str, str]:
    """UID by learner, of pods that a StatefulSet of this federation has made."""
    workloads = {child["metadata"]["uid"] for (kind, _), child in observed.children.items() if kind == "StatefulSet"}
    return {
        pods.learner_id(pod, owner.name): pod["metadata"]["uid"]
        for pod in observed.pods_of(names.LEARNER)
        if any(reference.get("uid") in workloads for reference in _owners(pod))
    }


@dataclass
class Announcements:
    """Remembers what was told, so that a controller hears only of changes. Losing that does no harm."""

    progress: ProgressSource
    _told: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)

    def announce(self, owner: Owner, observed: Observed) -> str:
        """Tell a controller that answers. Returns why it could not be told; empty when all is well."""
        if observed.address is None or observed.document is None:
            self._told.pop(owner.uid, None)
            return ""
        news = (observed.document.incarnation, instances(owner, observed))
        if self._told.get(owner.uid) == news:
            return ""
        try:
            self.progress.announce(observed.address, observed.token, news[1])
        except ProgressError as error:
            return str(error)
        self._told[owner.uid] = news
        return ""


def _owners(manifest: Manifest) -> Iterable[Manifest]:
    references: list[Manifest] = manifest["metadata"].get("ownerReferences", [])
    return references

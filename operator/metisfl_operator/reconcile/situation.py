"""All that the conditions and figures of a status depend on, in one place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from metisfl.api import FederationDocument
from metisfl.spec import Federation
from metisfl.spec.status import FederationStatus
from metisfl_operator import names
from metisfl_operator.reconcile.lifecycle import Lifecycle
from metisfl_operator.reconcile.observe import Observed
from metisfl_operator.reconcile.trouble import Trouble
from metisfl_operator.resources.expose import exposed
from metisfl_operator.resources.metadata import Owner


@dataclass(frozen=True)
class Situation:
    """All that conditions depend on."""

    owner: Owner
    federation: Federation
    stage: Lifecycle
    observed: Observed
    awaited: int
    """How many learners are counted upon now: all that have pods, and one of each external group."""
    previous: FederationStatus
    now: datetime
    refused: list[Trouble] = field(default_factory=list)
    crowded: dict[str, int] = field(default_factory=dict)

    @property
    def document(self) -> FederationDocument | None:
        return self.observed.document

    @property
    def connected(self) -> int:
        return connected(self.document)

    @property
    def endpoint(self) -> str:
        """Where learners find the controller: from outside where it is exposed, otherwise in the cluster."""
        service = self.observed.child("Service", names.exposure_name(self.owner.name))
        return exposed(self.federation, service) or names.endpoint(self.owner.name, self.owner.namespace)

    @property
    def absent(self) -> list[str]:
        """External groups of which nobody has joined."""
        return [name for name, count in self._external().items() if not count]

    @property
    def learners(self) -> int:
        """How many there should be now: those counted upon, and whoever of an external group is there beside."""
        if not self.stage.learners_run:
            return 0
        return self.awaited + sum(max(0, count - 1) for count in self._external().values())

    def _external(self) -> dict[str, int]:
        """Connected learners of each external group."""
        learners = self.document.learners if self.document else []
        there = Counter(learner.group for learner in learners if learner.connected)
        return {group.name: there[group.name] for group in self.federation.spec.training_groups if group.external}


def connected(document: FederationDocument | None) -> int:
    return sum(learner.connected for learner in document.learners) if document else 0

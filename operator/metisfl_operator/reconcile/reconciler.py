"""The pass itself. It reads as the design does: observe, desire, apply, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from metisfl.spec import KIND, Federation, SpecError, parse_federation
from metisfl.spec.federation import MANAGER
from metisfl.spec.rules import changed_for_good
from metisfl.spec.status import ConditionStatus, ConditionType, FederationStatus
from metisfl_operator import names
from metisfl_operator.kube import Kube, KubeError
from metisfl_operator.partitions import PartitionPlan, PlanError
from metisfl_operator.progress import ProgressSource
from metisfl_operator.reconcile.adoption import adopt
from metisfl_operator.reconcile.announcements import Announcements
from metisfl_operator.reconcile.apply import apply
from metisfl_operator.reconcile.certificates import (
    CertificatesError,
    certificate_requests,
    given_secrets,
    wanted_secrets,
)
from metisfl_operator.reconcile.conditions import find, invalid_spec
from metisfl_operator.reconcile.desired import Desired, desired, plan_for
from metisfl_operator.reconcile.events import NORMAL, Notice, notices, record
from metisfl_operator.reconcile.lifecycle import lifecycle
from metisfl_operator.reconcile.observe import Observed, observe
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.reconcile.situation import Situation
from metisfl_operator.reconcile.status import due, read_status, status_manifest, status_of
from metisfl_operator.reconcile.trouble import Trouble
from metisfl_operator.resources.configmap import accepted_federation
from metisfl_operator.resources.event import event
from metisfl_operator.resources.metadata import Manifest, Owner
from metisfl_operator.settings import Settings

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 15.0
"""How long a controller whose pod is ready may give no answer before its status says so."""


class InvalidFederationError(Exception):
    """The spec is wrong, and its status says so: trying again makes no difference until somebody edits it."""


def ours(manifest: Manifest) -> bool:
    """Whether `spec.managedBy` leaves the object to this operator; it may be one that only another can read."""
    return bool(manifest.get("spec", {}).get("managedBy", MANAGER) == MANAGER)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Reconciler:
    """Makes the cluster hold what one Federation asks for. Safe to repeat at any time; keeps no state that matters."""

    kube: Kube
    progress: ProgressSource
    settings: Settings
    now: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    _written: dict[str, float] = field(default_factory=dict, init=False)
    _silent: dict[str, float] = field(default_factory=dict, init=False)
    _announcements: Announcements = field(init=False)

    def __post_init__(self) -> None:
        self._announcements = Announcements(self.progress)

    def reconcile(self, namespace: str, name: str) -> None:
        """One pass. Raises InvalidFederationError for a spec that cannot be, KubeError for all that may pass."""
        manifest = self.kube.get(KIND, namespace, name)
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            # Owner references take the children along; making them anew now would be in the way.
            self._written.pop(f"{namespace}/{name}", None)
            self._silent.pop(f"{namespace}/{name}", None)
            return
        if not ours(manifest):
            return
        owner = Owner(name, namespace, manifest["metadata"]["uid"])
        previous = read_status(manifest)
        try:
            federation = parse_federation(manifest)
        except SpecError as error:
            self._report_invalid(owner, manifest, previous, error.problems)
            raise InvalidFederationError(str(error)) from error
        existing_claim = federation.spec.controller.storage.existing_claim
        observed = observe(self.kube, self.progress, owner, existing_claim)
        accepted = accepted_federation(observed.child("ConfigMap", names.controller_name(name)))
        if accepted is not None and (fixed := changed_for_good(accepted, federation)):
            self._report_invalid(owner, manifest, previous, tuple(fixed))
            raise InvalidFederationError("; ".join(fixed))
        self._report(owner, previous, self._pursue(owner, federation, observed, previous))

    def _pursue(
        self, owner: Owner, federation: Federation, observed: Observed, previous: FederationStatus
    ) -> FederationStatus:
        stage = lifecycle(federation, observed.document, previous, self.now())
        wanted, refused = Desired([], 0, {}), []
        try:
            plan = plan_for(federation, observed, owner)
        except PlanError as error:
            refused.append(Trouble(Reason.PLAN_UNREADABLE, f"PersistentVolumeClaim of {owner.name}", str(error)))
        else:
            wanted = desired(federation, owner, self.settings, plan, stage, observed)
            if trouble := self._adopt(owner, federation, observed, plan):
                refused.append(trouble)
            else:
                refused = self._apply(owner, federation, observed, wanted.manifests)
        situation = Situation(
            owner, federation, stage, observed, wanted.learners, previous, self.now(), refused, wanted.crowded
        )
        return previous if self._bear_with(owner, observed, previous) else status_of(situation)

    def _apply(
        self, owner: Owner, federation: Federation, observed: Observed, manifests: list[Manifest]
    ) -> list[Trouble]:
        """Secrets first: pods cannot start without them."""
        requests = certificate_requests(federation, owner)
        try:
            given = given_secrets(self.kube, federation, owner)
            secrets = wanted_secrets(federation, owner, observed.children, given, self.now())
        except CertificatesError as error:
            return [*apply(self.kube, owner, observed, requests, prune=False), error.trouble]
        refused = apply(self.kube, owner, observed, [*requests, *secrets, *manifests])
        if federation.spec.security.tls.enabled and (silence := self._announcements.announce(owner, observed)):
            log.warning("%s/%s: pods were not announced: %s", owner.namespace, owner.name, silence)
        return refused

    def _adopt(self, owner: Owner, federation: Federation, observed: Observed, plan: PartitionPlan) -> Trouble | None:
        name = federation.spec.controller.storage.existing_claim
        if name is None:
            return None
        return adopt(self.kube, owner, name, observed.child("PersistentVolumeClaim", name), plan)

    def _bear_with(self, owner: Owner, observed: Observed, previous: FederationStatus) -> bool:
        """Whether a controller that gives no answer is merely busy: it served a moment ago, or has only just become
        ready, and not every node knows its way to it."""
        key = f"{owner.namespace}/{owner.name}"
        if not observed.no_answer:
            self._silent.pop(key, None)
            return False
        since = self._silent.setdefault(key, self.monotonic())
        before = find(previous.conditions, ConditionType.CONTROLLER_AVAILABLE)
        was_well = before is not None and (before.status == ConditionStatus.TRUE or before.reason == Reason.STARTING)
        return was_well and self.monotonic() - since < PATIENCE_SECONDS

    def _report_invalid(
        self, owner: Owner, manifest: Manifest, previous: FederationStatus, problems: tuple[str, ...]
    ) -> None:
        generation = manifest["metadata"].get("generation", 0)
        told = invalid_spec(generation, problems, previous, self.now())
        self._report(owner, previous, previous.model_copy(update={"conditions": told}))

    def _report(self, owner: Owner, previous: FederationStatus, status: FederationStatus) -> None:
        key = f"{owner.namespace}/{owner.name}"
        if not due(status, previous, self.monotonic() - self._written.get(key, float("-inf"))):
            return
        self.kube.apply_status(status_manifest(owner, status))
        self._written[key] = self.monotonic()
        for notice in notices(previous.conditions, status.conditions):
            self._emit(owner, notice)

    def _emit(self, owner: Owner, notice: Notice) -> None:
        """The status is written by now, and an event that is lost changes nothing."""
        where = {"namespace": owner.namespace, "federation": owner.name}
        level = logging.INFO if notice.kind == NORMAL else logging.WARNING
        told = f"{owner.namespace}/{owner.name}: {notice.reason}: {notice.message}"
        log.log(level, "%s", told, extra={**where, "reason": notice.reason})
        try:
            record(self.kube, event(owner, notice.kind, notice.reason, notice.message, self.now()))
        except KubeError as error:
            log.warning("event %s was not recorded: %s", notice.reason, error, extra=where)

"""What should be there, given a valid spec: pure, from the builders in `resources`."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.spec import Federation
from metisfl_operator import names
from metisfl_operator.partitions import PartitionPlan
from metisfl_operator.reconcile.lifecycle import Lifecycle
from metisfl_operator.reconcile.observe import Observed
from metisfl_operator.resources.claim import PLAN_ANNOTATION, claim_name, held_by, volume_claim
from metisfl_operator.resources.configmap import config_map, controller_config, digest_of
from metisfl_operator.resources.controller import controller_set
from metisfl_operator.resources.disruption import disruption_budget
from metisfl_operator.resources.expose import exposure
from metisfl_operator.resources.learners import learner_claims, learner_set
from metisfl_operator.resources.metadata import Manifest, Owner, stamped
from metisfl_operator.resources.network import network_policies
from metisfl_operator.resources.service import controller_service
from metisfl_operator.resources.volume import settled
from metisfl_operator.settings import Settings


@dataclass(frozen=True)
class Desired:
    """`manifests` in the order to apply them; `crowded` names groups that want more learners than they have shares."""

    manifests: list[Manifest]
    learners: int
    """How many are counted upon for training: all pods, and one of each external group."""
    crowded: dict[str, int]
    """Group name to the number of learners it can have."""


def plan_for(federation: Federation, observed: Observed, owner: Owner) -> PartitionPlan:
    """The stored plan, extended where the spec has grown; a new one for a new federation. Raises PlanError."""
    claim = observed.child("PersistentVolumeClaim", claim_name(owner.name, federation))
    if claim is None or _brought_without_plan(claim, federation, owner):
        return PartitionPlan.of(federation.spec)
    stored = claim["metadata"].get("annotations", {}).get(PLAN_ANNOTATION, "")
    return PartitionPlan.parse(stored).extended(federation.spec.training_groups)


def desired(
    federation: Federation,
    owner: Owner,
    settings: Settings,
    plan: PartitionPlan,
    stage: Lifecycle,
    observed: Observed | None = None,
) -> Desired:
    controller = federation.spec.controller
    configuration = config_map(owner, controller_config(federation, owner), plan)
    manifests = [configuration]
    if controller.storage.existing_claim is None:
        manifests.insert(0, volume_claim(owner, federation, plan))
    if settings.network is not None:
        manifests += network_policies(owner, federation, settings.network)
    if stage is not Lifecycle.EXPIRED:
        manifests += [controller_service(owner), *exposure(owner, federation)]
    if controller.protect_from_eviction and stage is Lifecycle.RUNNING:
        manifests.append(disruption_budget(owner))
    manifests.append(controller_set(owner, federation, settings, stage.controller_replicas))
    learners, crowded = 0, {}
    for group in federation.spec.learner_groups:
        room = group.size if group.evaluates_only else plan.room(group.name)
        if group.size > room:
            crowded[group.name] = room
        awaited = min(group.awaited, room) if stage.learners_run else 0
        learners += 0 if group.evaluates_only else awaited
        if group.external:
            continue
        if observed is not None and not _knows(observed, configuration):
            awaited = min(awaited, _present(observed, names.learners_name(owner.name, group.name)))
        manifests += learner_claims(owner, group, awaited)
        manifests.append(learner_set(owner, federation, group, settings, awaited))
    return Desired([stamped(_settled(manifest, observed)) for manifest in manifests], learners, crowded)


def _settled(manifest: Manifest, observed: Observed | None) -> Manifest:
    if observed is None or manifest["kind"] != "PersistentVolumeClaim":
        return manifest
    current = observed.child("PersistentVolumeClaim", manifest["metadata"]["name"])
    return manifest if current is None else settled(manifest, current)


def _brought_without_plan(claim: Manifest, federation: Federation, owner: Owner) -> bool:
    """Whether a claim to go on from never had a plan; one that is this federation's by now has lost it."""
    existing = federation.spec.controller.storage.existing_claim is not None
    return existing and PLAN_ANNOTATION not in claim["metadata"].get("annotations", {}) and not held_by(claim, owner)


def _knows(observed: Observed, configuration: Manifest) -> bool:
    """Whether the controller that runs has read this configuration; it refuses learners that it does not know of.

    One that is yet to start reads it then, and one of an older release does not say.
    """
    document = observed.document
    return document is None or document.configuration in ("", digest_of(configuration))


def _present(observed: Observed, workload: str) -> int:
    found = observed.child("StatefulSet", workload)
    return int(found["spec"].get("replicas", 0)) if found else 0

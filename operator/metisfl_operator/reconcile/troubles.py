"""What is wrong with the pods and workloads of one part of a federation."""

from __future__ import annotations

from collections.abc import Sequence

from metisfl.api import LearnerDocument
from metisfl_operator import names
from metisfl_operator.reconcile import pods
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.reconcile.situation import Situation
from metisfl_operator.reconcile.trouble import Trouble
from metisfl_operator.resources.metadata import Manifest


def troubles_of(situation: Situation, component: str, *, evaluators: bool = False) -> list[Trouble]:
    """What is wrong with pods and workloads of one component, of evaluators or of all others; a learner that is
    connected is in no trouble."""
    observed, owner, document = situation.observed, situation.owner, situation.document
    learners: Sequence[LearnerDocument] = ()
    if document is not None and component == names.LEARNER:
        learners = document.evaluators if evaluators else document.learners
    at_work = {learner.id for learner in learners if learner.connected}
    evaluating = {group.name for group in situation.federation.spec.evaluator_groups}
    found: list[Trouble | None] = []
    told: set[str] = set()
    for pod in observed.pods_of(component):
        learner = pods.learner_id(pod, owner.name)
        if learner in at_work or (_group_of(pod) in evaluating) != evaluators:
            continue
        trouble = pods.trouble_of(pod, observed.events_of(pod))
        if trouble:
            told.add(learner)
        found.append(trouble)
    for (kind, _), child in observed.children.items():
        of_component = child["metadata"].get("labels", {}).get(names.LABEL_COMPONENT) == component
        if kind == "StatefulSet" and of_component and (_group_of(child) in evaluating) == evaluators:
            found.append(pods.rejection_of(child, observed.events_of(child)))
    found += [
        Trouble(Reason.LEARNER_LOST, learner.id, learner.message)
        for learner in learners
        if learner.message and not learner.connected and learner.id not in told
    ]
    return [trouble for trouble in found if trouble]


def _group_of(manifest: Manifest) -> str:
    group: str = manifest["metadata"].get("labels", {}).get(names.LABEL_GROUP, "")
    return group


def first(troubles: list[Trouble]) -> Trouble | None:
    """The one to tell of: all pods of a group usually share one cause, and its order is stable."""
    return troubles[0] if troubles else None

"""The conditions of a Federation, each from what was observed in this pass."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from metisfl.api import FederationState
from metisfl.spec.status import MAX_MESSAGE_LENGTH, Condition, ConditionStatus, ConditionType, FederationStatus
from metisfl_operator import names
from metisfl_operator.reconcile import pods
from metisfl_operator.reconcile.lifecycle import Lifecycle
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.reconcile.situation import Situation
from metisfl_operator.reconcile.troubles import first, troubles_of

_SHOWN_CAUSES = 5
_UNTROUBLED = (Reason.STARTING, Reason.ALL_CONNECTED, Reason.WAITING_FOR_SITES)
_GATHERING = (FederationState.WAITING_FOR_LEARNERS, FederationState.INITIALISING)


@dataclass(frozen=True)
class Judgement:
    """A condition before it has a generation and a time."""

    holds: bool
    reason: str
    message: str


def conditions(situation: Situation) -> list[Condition]:
    """Every condition, always in the same order."""
    learners = _learners_ready(situation)
    controller = _controller_available(situation)
    judged = {
        ConditionType.CONTROLLER_AVAILABLE: controller,
        ConditionType.LEARNERS_READY: learners,
        ConditionType.PROGRESSING: _progressing(situation, controller, learners),
        ConditionType.SECURED: _secured(situation),
        ConditionType.SUSPENDED: _suspended(situation),
    }
    stated = [dated(kind, judgement, situation) for kind, judgement in judged.items()]
    return [*stated, *_delivered(situation), *_outcome(situation)]


def invalid_spec(
    generation: int, problems: Iterable[str], previous: FederationStatus, now: datetime
) -> list[Condition]:
    """The previous conditions, with Progressing telling what is wrong: nothing that runs is touched."""
    told = Judgement(False, Reason.INVALID_SPEC, "; ".join(problems))
    kept = [c for c in previous.conditions if c.type != ConditionType.PROGRESSING]
    return [*kept, _dated(ConditionType.PROGRESSING, told, generation, previous, now)]


def dated(kind: ConditionType, judgement: Judgement, situation: Situation) -> Condition:
    generation = situation.federation.metadata.generation or 0
    return _dated(kind, judgement, generation, situation.previous, situation.now)


def _dated(
    kind: ConditionType, judgement: Judgement, generation: int, previous: FederationStatus, now: datetime
) -> Condition:
    """The transition time moves only when the status does."""
    status = ConditionStatus.TRUE if judgement.holds else ConditionStatus.FALSE
    before = find(previous.conditions, kind)
    since = before.last_transition_time if before and before.status == status else now.replace(microsecond=0)
    return Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=since,
        reason=judgement.reason,
        message=judgement.message[:MAX_MESSAGE_LENGTH] or judgement.reason,
    )


def find(among: Iterable[Condition], kind: ConditionType) -> Condition | None:
    return next((condition for condition in among if condition.type == kind), None)


def _controller_available(situation: Situation) -> Judgement:
    observed, owner = situation.observed, situation.owner
    if situation.stage is Lifecycle.SUSPENDED:
        return Judgement(False, Reason.SUSPENDED, "Suspended: the controller is scaled to zero and its volume is kept")
    if situation.stage is Lifecycle.EXPIRED:
        ttl = situation.federation.spec.ttl_seconds_after_finished
        return Judgement(False, Reason.EXPIRED, f"Removed {ttl} seconds after the end; the volume is kept")
    if situation.document is not None:
        where = names.endpoint(owner.name, owner.namespace)
        return Judgement(True, Reason.SERVING, f"Serving at {where}")
    trouble = first(troubles_of(situation, names.CONTROLLER))
    if trouble:
        return Judgement(False, trouble.reason, trouble.message)
    if observed.no_answer:
        return Judgement(False, Reason.NO_ANSWER, observed.no_answer)
    return Judgement(False, Reason.STARTING, "The controller's pod is starting")


def _learners_ready(situation: Situation) -> Judgement:
    if not situation.stage.learners_run:
        why = "while suspended" if situation.stage is Lifecycle.SUSPENDED else "after the end"
        return Judgement(False, Reason.SCALED_DOWN, f"Learners are scaled to zero {why}")
    count = f"{situation.connected} of {situation.learners} learners are connected"
    troubles = troubles_of(situation, names.LEARNER)
    worst = first(troubles)
    if worst:
        return Judgement(False, worst.reason, "; ".join([count, *pods.summary(troubles, _SHOWN_CAUSES)]))
    if situation.crowded:
        told = [f"group {name} has shares of the data for {room} learners" for name, room in situation.crowded.items()]
        advice = "create the federation with a larger learner.partitions to leave room"
        return Judgement(False, Reason.NO_PARTITION_LEFT, "; ".join([count, *told, advice]))
    if situation.connected + len(situation.absent) < situation.learners:
        return Judgement(False, Reason.STARTING, count)
    if situation.absent:
        groups = ", ".join(situation.absent)
        advice = f"give each site its bundle: metisfl bundle {situation.owner.name} --group {situation.absent[0]}"
        return Judgement(False, Reason.WAITING_FOR_SITES, f"{count}; nobody has joined of {groups}; {advice}")
    return Judgement(True, Reason.ALL_CONNECTED, count)


def _progressing(situation: Situation, controller: Judgement, learners: Judgement) -> Judgement:
    document = situation.document
    if situation.refused:
        worst = situation.refused[0]
        return Judgement(False, worst.reason, "; ".join(trouble.message for trouble in situation.refused))
    if situation.stage is Lifecycle.SUSPENDED:
        return Judgement(False, Reason.SUSPENDED, "spec.suspend is true")
    if situation.stage is not Lifecycle.RUNNING:
        failed = find(_outcome(situation), ConditionType.FAILED)
        if failed and failed.status == ConditionStatus.TRUE:
            return Judgement(False, Reason.FAILED, failed.message)
        return Judgement(False, Reason.COMPLETED, "The federation is complete")
    if document is None:
        if controller.reason == Reason.STARTING:
            return Judgement(True, Reason.WAITING_FOR_CONTROLLER, controller.message)
        return Judgement(False, controller.reason, controller.message)
    if document.state in _GATHERING and learners.reason not in _UNTROUBLED:
        return Judgement(False, learners.reason, learners.message)
    unit = situation.federation.spec.protocol.type.unit
    told = document.message or f"{unit.capitalize()} {document.current_round} of {document.max_rounds}"
    return Judgement(True, _word(document.reason) or document.state.value, told)


def _word(reason: str) -> str:
    """The controller's reason where it can be one of a condition; controllers may be older or newer than we are."""
    return reason if re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,62}", reason) else ""


def _suspended(situation: Situation) -> Judgement:
    if situation.federation.spec.suspend:
        return Judgement(True, Reason.SUSPENDED, "spec.suspend is true")
    return Judgement(False, Reason.NOT_SUSPENDED, "spec.suspend is false")


def _delivered(situation: Situation) -> list[Condition]:
    """ModelDelivered, where the spec has an output: the controller's word, or what it said last."""
    if situation.federation.spec.output is None:
        return []
    output = situation.document.output if situation.document else None
    if output is None:
        said = find(situation.previous.conditions, ConditionType.MODEL_DELIVERED)
        return [said] if said else []
    if output.message:
        told = Judgement(False, Reason.DELIVERY_FAILED, f"{output.url}: {output.message}")
    elif output.pending:
        told = Judgement(False, Reason.DELIVERING, f"Versions on their way to {output.url}: {output.pending}")
    elif output.delivered is None:
        told = Judgement(False, Reason.NOTHING_TO_DELIVER, f"No model has to be at {output.url} yet")
    else:
        told = Judgement(True, Reason.DELIVERED, f"Version {output.delivered} is at {output.url}")
    return [dated(ConditionType.MODEL_DELIVERED, told, situation)]


def _secured(situation: Situation) -> Judgement:
    wrong = (Reason.CERTIFICATES_MISSING, Reason.CERTIFICATES_UNUSABLE)
    for trouble in situation.refused:
        if trouble.reason in wrong:
            return Judgement(False, trouble.reason, trouble.message)
    tls = situation.federation.spec.security.tls
    if not tls.enabled:
        return Judgement(
            False,
            Reason.TLS_DISABLED,
            "security.tls.mode is Disabled: whoever reaches the controller may join, and everything travels in clear "
            "text",
        )
    return Judgement(True, Reason.MUTUAL_TLS, "Every learner has a certificate of its own, and so has the controller")


def _outcome(situation: Situation) -> list[Condition]:
    """Complete and Failed: the controller's word, or while it is silent what it said last, about which generation."""
    document, kinds = situation.document, (ConditionType.COMPLETE, ConditionType.FAILED)
    if document is None:
        said = [find(situation.previous.conditions, kind) for kind in kinds]
        if all(said):
            return [condition for condition in said if condition]
    state = document.state if document else None
    told = (document.message if document else "") or "The run has ended"
    word = _word(document.reason) if document else ""
    complete = Judgement(False, Reason.IN_PROGRESS, "The run has not ended")
    failed = Judgement(False, Reason.NOT_FAILED, "Nothing ended the run before its time")
    if state is FederationState.COMPLETE:
        complete = Judgement(True, word or Reason.COMPLETED, told)
    elif state is FederationState.FAILED:
        complete = Judgement(False, Reason.FAILED, "The run has failed")
        failed = Judgement(True, word or Reason.FAILED, told)
    return [dated(kind, judgement, situation) for kind, judgement in zip(kinds, (complete, failed), strict=True)]


def evaluators_message(situation: Situation) -> str:
    """What is wrong with evaluators, which no condition depends on: nobody waits for them."""
    troubles = troubles_of(situation, names.LEARNER, evaluators=True) if situation.stage.learners_run else []
    evaluators = situation.document.evaluators if situation.document else []
    missed = [
        f"{each.id} was busy or away for {each.missed} {'version' if each.missed == 1 else 'versions'}"
        for each in evaluators
        if each.missed
    ]
    return "; ".join([*pods.summary(troubles, _SHOWN_CAUSES), *missed[:_SHOWN_CAUSES]])

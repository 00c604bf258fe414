"""The REST documents, made from what the conductor knows. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from metisfl.api import (
    EvaluatorDocument,
    FederationDocument,
    FederationState,
    GlobalModel,
    LearnerDocument,
    MetricValue,
    ModelDocument,
    RoundDocument,
    RoundProgress,
    UpdateDocument,
)
from metisfl_controller.conductor.conductor import Conductor
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.rounds.evaluation import Mean, Report, weighted_means
from metisfl_controller.rounds.evaluators import Evaluator
from metisfl_controller.rounds.phases import Phase
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.rounds.training import RoundStatus
from metisfl_controller.state.lineage import KeptUpdate
from metisfl_controller.state.records import RoundRecord, StoredVersion
from metisfl_controller.state.registry import Learner

_STATES = {
    Phase.INITIALISING: FederationState.INITIALISING,
    Phase.TRAINING: FederationState.TRAINING,
    Phase.COMMITTING: FederationState.TRAINING,
    Phase.EVALUATING: FederationState.EVALUATING,
    Phase.ENDED: FederationState.EVALUATING,  # for the moment until the outcome is durable
}


def federation_document(conductor: Conductor, published_version: StoredVersion | None) -> FederationDocument:
    """`GET /v1/federation`. `published_version`: that of the outcome, once there is one."""
    machine, progress, spec = conductor.machine, conductor.progress, conductor.federation.spec
    outcome, latest = progress.outcome, progress.latest
    published = outcome.published_version if outcome else None
    committed = latest.version if latest else 0
    latest = published_version or latest
    state, reason, message = _standing(conductor)
    return FederationDocument(
        name=conductor.federation.metadata.name,
        uid=conductor.uid,
        configuration=conductor.configuration.digest,
        incarnation=progress.incarnation,
        state=state,
        reason=reason,
        message=message,
        current_round=machine.round.number if machine.round else committed,
        protocol=spec.protocol.type,
        max_rounds=spec.termination.max_rounds,
        committed_rounds=committed,
        round=_progress(machine.round) if machine.round else None,
        learners=_learners(conductor),
        desired_learners=conductor.registry.desired,
        evaluators=_evaluators(conductor),
        desired_evaluators=conductor.registry.desired_evaluators,
        metrics=_newest(progress.version_metrics, published),
        evaluator_metrics=_newest(progress.evaluator_metrics, published),
        global_model=GlobalModel(
            version=latest.version, sha256=latest.sha256, location=f"models/{latest.file}", bytes=latest.bytes
        )
        if latest
        else None,
        output=conductor.delivery.document,
        codec=spec.transport.codec,
        bytes_sent=conductor.metrics.bytes_sent,
        bytes_received=conductor.metrics.bytes_received,
        start_time=_time(machine.started_at),
        completion_time=_time(outcome.completed_at) if outcome else None,
    )


def _standing(conductor: Conductor) -> tuple[FederationState, str, str]:
    """State, reason and message."""
    machine, outcome, output = conductor.machine, conductor.progress.outcome, conductor.delivery.document
    if outcome is not None and conductor.delivering and output is not None:
        return FederationState.DELIVERING, "DeliveringModel", f"the published model is on its way to {output.url}"
    if outcome is not None:
        return FederationState(outcome.state), outcome.reason, outcome.message
    if machine.phase in (Phase.GATHERING, Phase.BETWEEN):
        told = f"{len(machine.ready)} of at least {machine.plan.min_learners} learners are ready"
        return FederationState.WAITING_FOR_LEARNERS, "LearnersMissing", told
    return _STATES[machine.phase], "", machine.termination.remark


def round_document(record: RoundRecord, progress: Progress) -> RoundDocument:
    """One entry of `GET /v1/rounds`."""
    reports = [Report(c.examples, c.metrics) for c in record.contributed.values()]
    return RoundDocument(
        number=record.number,
        version=record.version,
        started_at=datetime.fromtimestamp(record.started_at, UTC),
        ended_at=datetime.fromtimestamp(record.ended_at, UTC),
        attempts=record.attempts,
        participants=sorted({*record.contributed, *record.lost}),
        contributors=sorted(record.contributed),
        lost=list(record.lost),
        updates=len(record.tasks),
        staleness=_staleness(record),
        phase_seconds={
            "train": record.train_seconds,
            "aggregate": record.aggregate_seconds,
            "commit": record.commit_seconds,
        },
        train_metrics={name: mean.value for name, mean in weighted_means(reports).items()},
        metrics=_values(progress.version_metrics, record.version),
        evaluator_metrics=_values(progress.evaluator_metrics, record.version),
        bytes_received=record.bytes_received,
        bytes_sent=record.bytes_sent,
    )


def _staleness(record: RoundRecord) -> float:
    """Mean of version − 1 − base over the tasks whose results are in the version."""
    bases = [TaskId.parse(task).base_version for task in record.tasks]
    return sum(record.version - 1 - base for base in bases) / len(bases) if bases else 0.0


def model_document(version: StoredVersion, progress: Progress) -> ModelDocument:
    """One entry of `GET /v1/models`."""
    published = progress.outcome.published_version if progress.outcome else None
    return ModelDocument(
        version=version.version,
        sha256=version.sha256,
        bytes=version.bytes,
        created_at=datetime.fromtimestamp(version.created_at, UTC),
        metrics=_values(progress.version_metrics, version.version),
        evaluator_metrics=_values(progress.evaluator_metrics, version.version),
        published=version.version == published,
    )


def update_document(update: KeptUpdate) -> UpdateDocument:
    """One entry of `GET /v1/updates`."""
    return UpdateDocument(
        learner=update.learner,
        base_version=update.base_version,
        file=update.file,
        bytes=update.bytes,
        created_at=datetime.fromtimestamp(update.created_at, UTC),
    )


def _progress(status: RoundStatus) -> RoundProgress:
    return RoundProgress(
        number=status.number,
        attempt=status.attempt,
        participants=status.participants,
        contributions=status.contributions,
        quorum=status.quorum,
        started_at=datetime.fromtimestamp(status.started_at, UTC),
        deadline_at=datetime.fromtimestamp(status.deadline_at, UTC),
    )


def _learners(conductor: Conductor) -> list[LearnerDocument]:
    contributions = conductor.progress.contributions
    return [
        LearnerDocument(**_seen(conductor, learner), contributions=contributions.get(learner.id, 0))
        for learner in _in_order(conductor, evaluators=False)
    ] + [LearnerDocument(**refusal) for refusal in _refusals(conductor, evaluators=False)]


def _evaluators(conductor: Conductor) -> list[EvaluatorDocument]:
    done, unknown = conductor.machine.evaluators.present, Evaluator()
    return [
        EvaluatorDocument(
            **_seen(conductor, learner),
            version=(found := done.get(learner.id, unknown)).reported,
            evaluations=found.evaluated,
            missed=found.missed,
        )
        for learner in _in_order(conductor, evaluators=True)
    ] + [EvaluatorDocument(**refusal) for refusal in _refusals(conductor, evaluators=True)]


def _in_order(conductor: Conductor, *, evaluators: bool) -> list[Learner]:
    learners = (each for each in conductor.registry.learners.values() if each.evaluator == evaluators)
    return sorted(learners, key=lambda learner: (learner.group, learner.ordinal))


def _seen(conductor: Conductor, learner: Learner) -> dict[str, Any]:
    return {
        "id": learner.id,
        "group": learner.group,
        "connected": conductor.attendance.is_connected(learner),
        "activity": learner.activity,
        "progress": learner.progress,
        "message": learner.message,
        "train_examples": learner.train_examples,
        "test_examples": learner.test_examples,
        "last_seen": _time(learner.last_seen),
    }


def _refusals(conductor: Conductor, *, evaluators: bool) -> list[dict[str, Any]]:
    """Learners that could not join, and never have."""
    registry = conductor.registry
    return [
        {"id": learner, "group": group, "connected": False, "activity": "Lost", "message": message}
        for learner, message in registry.refusals.items()
        if learner not in registry.learners
        and ((group := learner.rpartition("-")[0]) in registry.evaluators) == evaluators
    ]


def _newest(metrics: Mapping[int, Mapping[str, Mean]], published: int | None) -> list[MetricValue]:
    """Of the published version, or while there is none of the newest evaluated one."""
    return _values(metrics, published if published is not None else max(metrics, default=None))


def _values(metrics: Mapping[int, Mapping[str, Mean]], version: int | None) -> list[MetricValue]:
    if version is None:
        return []
    return [
        MetricValue(name=name, value=mean.value, version=version, examples=mean.examples)
        for name, mean in sorted(metrics.get(version, {}).items())
    ]


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

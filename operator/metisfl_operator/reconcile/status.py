"""`.status`: from a situation to what is written, and whether it is time to write it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from metisfl.api import FederationDocument, MetricValue
from metisfl.spec import API_GROUP, API_VERSION, KIND
from metisfl.spec.status import (
    MAX_MESSAGE_LENGTH,
    Condition,
    EvaluatorsStatus,
    FederationStatus,
    GlobalModelStatus,
    LearnersStatus,
    MetricStatus,
)
from metisfl_operator.reconcile.conditions import conditions, evaluators_message
from metisfl_operator.reconcile.lifecycle import Lifecycle
from metisfl_operator.reconcile.situation import Situation
from metisfl_operator.resources.metadata import Manifest, Owner

# Figures change all the time; writing each of them would keep every watcher of the API server busy.
MIN_SECONDS_BETWEEN_WRITES = 5.0
_SIGNIFICANT_DIGITS = 6
_MAX_METRICS = 64


def read_status(manifest: Manifest) -> FederationStatus:
    """What was written last; empty when there is nothing, or nothing this version can read."""
    try:
        return FederationStatus.model_validate(manifest.get("status") or {})
    except ValidationError:
        return FederationStatus()


def status_of(situation: Situation) -> FederationStatus:
    """While the controller is silent its last figures stay; they belong to the volume, and that is still there."""
    document, previous = situation.document, situation.previous
    figures: dict[str, Any] = {
        "current_round": previous.current_round,
        "metrics": previous.metrics,
        "global_model": previous.global_model,
        "start_time": previous.start_time,
        "completion_time": previous.completion_time,
    }
    if document is not None:
        figures = _figures(document, _target(situation))
    serving = situation.stage in (Lifecycle.RUNNING, Lifecycle.FINISHED)
    return FederationStatus(
        conditions=conditions(situation),
        observed_generation=situation.federation.metadata.generation,
        learners=_learners(situation),
        evaluators=_evaluators(situation),
        endpoint=situation.endpoint if serving else None,
        **figures,
    )


def due(new: FederationStatus, old: FederationStatus, seconds_since_write: float) -> bool:
    """Whether to write now: at once when a condition changes, otherwise at most every few seconds."""
    if new == old:
        return False
    return _essence(new.conditions) != _essence(old.conditions) or seconds_since_write >= MIN_SECONDS_BETWEEN_WRITES


def status_manifest(owner: Owner, status: FederationStatus) -> Manifest:
    return {
        "apiVersion": f"{API_GROUP}/{API_VERSION}",
        "kind": KIND,
        "metadata": {"name": owner.name, "namespace": owner.namespace},
        "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def decimal_text(value: float) -> str:
    """Six significant digits, never in scientific notation: conventions keep floats out of objects."""
    number = Decimal(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    return format(number, "f") if number.is_finite() else str(number)


def _essence(among: Iterable[Condition]) -> set[tuple[str, str, str, int]]:
    return {(c.type, c.status, c.reason, c.observed_generation) for c in among}


def _figures(document: FederationDocument, target: str | None) -> dict[str, Any]:
    model = document.global_model
    return {
        "current_round": document.current_round,
        "metrics": _metrics(document.metrics, target),
        "global_model": model
        and GlobalModelStatus(version=model.version, sha256=model.sha256, location=model.location),
        "start_time": document.start_time and document.start_time.replace(microsecond=0),
        "completion_time": document.completion_time and document.completion_time.replace(microsecond=0),
    }


def _metrics(values: Iterable[MetricValue], target: str | None) -> list[MetricStatus]:
    """Ordered by name, the one that may end the run first: it is the one people watch."""
    ordered = sorted({value.name: value for value in values}.values(), key=lambda v: (v.name != target, v.name))
    return [MetricStatus(name=value.name, value=decimal_text(value.value)) for value in ordered[:_MAX_METRICS]]


def _evaluators(situation: Situation) -> EvaluatorsStatus | None:
    spec, document, previous = situation.federation.spec, situation.document, situation.previous.evaluators
    if not spec.evaluator_groups:
        return None
    desired = spec.awaited_evaluators if situation.stage.learners_run else 0
    ready = sum(each.connected for each in document.evaluators) if document else 0
    metrics, version = (previous.metrics, previous.version) if previous else ([], None)
    if document is not None and document.evaluator_metrics:
        metrics, version = (
            _metrics(document.evaluator_metrics, _target(situation)),
            document.evaluator_metrics[0].version,
        )
    return EvaluatorsStatus(
        desired=desired,
        ready=min(ready, desired),
        summary=f"{min(ready, desired)}/{desired}",
        version=version,
        metrics=metrics,
        message=evaluators_message(situation)[:MAX_MESSAGE_LENGTH] or None,
    )


def _target(situation: Situation) -> str | None:
    target = situation.federation.spec.termination.target_metric
    return target.name if target else None


def _learners(situation: Situation) -> LearnersStatus:
    document = situation.document
    participating = document.round.participants if document and document.round else 0
    connected = min(situation.connected, situation.learners)
    return LearnersStatus(
        desired=situation.learners,
        ready=connected,
        participating=participating,
        summary=f"{connected}/{situation.learners}",
    )

"""Figures as text, when to write, and which changes are events."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.spec.status import Condition, ConditionStatus, ConditionType, FederationStatus
from metisfl_operator.reconcile.events import notices
from metisfl_operator.reconcile.reasons import Reason
from metisfl_operator.reconcile.status import decimal_text, due, read_status

NOW = datetime(2024, 5, 1, 10, tzinfo=UTC)


def condition(kind: ConditionType, holds: bool, reason: str, message: str = "words") -> Condition:
    return Condition(
        type=kind,
        status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
        observed_generation=1,
        last_transition_time=NOW,
        reason=reason,
        message=message,
    )


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
def test_decimal_text_is_close_and_plain(value: float) -> None:
    text = decimal_text(value)
    assert "e" not in text.lower()
    assert abs(Decimal(text) - Decimal(value)) <= abs(Decimal(value)) * Decimal("1e-5")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9123456789, "0.912346"), (1.0, "1"), (0.0, "0"), (float("inf"), "Infinity"), (2.5e-7, "0.00000025")],
)
def test_decimal_text(value: float, text: str) -> None:
    assert decimal_text(value) == text


def test_nothing_new_is_never_written() -> None:
    assert not due(FederationStatus(current_round=1), FederationStatus(current_round=1), 1e9)


def test_figures_wait_and_conditions_do_not() -> None:
    old = FederationStatus(current_round=1, conditions=[condition(ConditionType.PROGRESSING, True, "Training")])
    figures = old.model_copy(update={"current_round": 2})
    told = old.model_copy(update={"conditions": [condition(ConditionType.PROGRESSING, False, "Crashed")]})
    words = old.model_copy(update={"conditions": [condition(ConditionType.PROGRESSING, True, "Training", "other")]})
    assert not due(figures, old, 4.9)
    assert due(figures, old, 5.0)
    assert due(told, old, 0.0)
    assert not due(words, old, 4.9)


def test_a_status_of_another_version_counts_as_none() -> None:
    assert read_status({"status": {"conditions": [{"type": "Ready"}]}}) == FederationStatus()
    assert read_status({"status": None}) == FederationStatus()
    assert read_status({"status": {"currentRound": 3, "later": "field"}}).current_round == 3


def test_a_cause_in_several_conditions_is_one_event() -> None:
    trouble = [
        condition(ConditionType.LEARNERS_READY, False, Reason.IMAGE_PULL_FAILED),
        condition(ConditionType.PROGRESSING, False, Reason.IMAGE_PULL_FAILED),
    ]
    assert [(n.kind, n.reason) for n in notices([], trouble)] == [("Warning", "ImagePullFailed")]
    assert notices(trouble, trouble) == []


@pytest.mark.parametrize(
    ("kind", "holds", "reason", "expected"),
    [
        (ConditionType.COMPLETE, True, "TargetMetricReached", "Normal"),
        (ConditionType.FAILED, True, "QuorumNotReached", "Warning"),
        (ConditionType.CONTROLLER_AVAILABLE, True, Reason.SERVING, "Normal"),
        (ConditionType.CONTROLLER_AVAILABLE, False, Reason.NO_ANSWER, "Warning"),
        (ConditionType.PROGRESSING, False, Reason.COMPLETED, None),
        (ConditionType.PROGRESSING, False, Reason.FAILED, None),
        (ConditionType.PROGRESSING, False, Reason.SUSPENDED, "Normal"),
        (ConditionType.PROGRESSING, True, "Training", "Normal"),
        (ConditionType.PROGRESSING, True, "LearnersMissing", None),
        (ConditionType.PROGRESSING, False, Reason.INVALID_SPEC, "Warning"),
        (ConditionType.LEARNERS_READY, False, Reason.STARTING, None),
        (ConditionType.FAILED, False, Reason.NOT_FAILED, None),
        (ConditionType.COMPLETE, False, Reason.FAILED, None),
    ],
)
def test_kinds_of_events(kind: ConditionType, holds: bool, reason: str, expected: str | None) -> None:
    told = notices([], [condition(kind, holds, reason)])
    assert [notice.kind for notice in told] == ([expected] if expected else [])

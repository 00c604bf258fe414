"""Which pods a federation should have, by what the controller says and said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from metisfl.api import FederationDocument, FederationState
from metisfl.spec import Federation
from metisfl.spec.status import Condition, ConditionStatus, ConditionType, FederationStatus
from metisfl_operator.reconcile.lifecycle import Lifecycle, lifecycle

NOW = datetime(2024, 5, 1, 10, tzinfo=UTC)
GENERATION = 3  # of the fixture's federation


def said(state: FederationState, ended: datetime | None = None) -> FederationDocument:
    return FederationDocument(name="demo", uid="u-1", incarnation=1, state=state, max_rounds=5, completion_time=ended)


def remembered(kind: ConditionType, generation: int, ended: datetime | None = None) -> FederationStatus:
    condition = Condition(
        type=kind,
        status=ConditionStatus.TRUE,
        observed_generation=generation,
        last_transition_time=NOW,
        reason="Word",
        message="words",
    )
    return FederationStatus(conditions=[condition], completion_time=ended)


NOTHING = FederationStatus()


@pytest.mark.parametrize("state", FederationState)
def test_by_the_controllers_word(federation: Callable[..., Federation], state: FederationState) -> None:
    expected = Lifecycle.FINISHED if state.final else Lifecycle.RUNNING
    assert lifecycle(federation(), said(state), NOTHING, NOW) is expected


def test_a_new_federation_runs(federation: Callable[..., Federation]) -> None:
    assert lifecycle(federation(), None, NOTHING, NOW) is Lifecycle.RUNNING


@pytest.mark.parametrize("kind", [ConditionType.COMPLETE, ConditionType.FAILED])
def test_the_end_is_remembered_while_the_controller_is_silent(
    federation: Callable[..., Federation], kind: ConditionType
) -> None:
    assert lifecycle(federation(), None, remembered(kind, GENERATION), NOW) is Lifecycle.FINISHED


def test_suspension_comes_before_all(federation: Callable[..., Federation]) -> None:
    suspended = federation(suspend=True)
    for document in (None, said(FederationState.TRAINING), said(FederationState.COMPLETE)):
        assert lifecycle(suspended, document, NOTHING, NOW) is Lifecycle.SUSPENDED


@pytest.mark.parametrize(("age", "expected"), [(59, Lifecycle.FINISHED), (60, Lifecycle.EXPIRED)])
def test_time_to_live(federation: Callable[..., Federation], age: int, expected: Lifecycle) -> None:
    ended = NOW - timedelta(seconds=age)
    brief = federation(ttlSecondsAfterFinished=60)
    assert lifecycle(brief, said(FederationState.COMPLETE, ended), NOTHING, NOW) is expected
    assert lifecycle(brief, None, remembered(ConditionType.COMPLETE, GENERATION, ended), NOW) is expected


def test_after_a_change_the_controller_is_asked_again(federation: Callable[..., Federation]) -> None:
    """The volume knows whether there is more to do, and only a controller can read it."""
    long_ago = NOW - timedelta(days=1)
    stale = remembered(ConditionType.COMPLETE, GENERATION - 1, long_ago)
    assert lifecycle(federation(ttlSecondsAfterFinished=60), None, stale, NOW) is Lifecycle.FINISHED

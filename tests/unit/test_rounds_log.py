"""Rounds are followed in pages, and what is known late of a round is not missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metisfl.api import FederationDocument, MetricValue, RoundDocument
from metisfl.api.rounds import PAGE, RECENT, RoundLog, read_rounds
from tests.unit.local.samples import federation_document, round_document


@dataclass
class Controller:
    """Answers as `GET /v1/rounds` does, or as before it knew pages."""

    rounds: list[RoundDocument] = field(default_factory=list)
    knows_pages: bool = True
    answered: list[int] = field(default_factory=list)

    def read(self, after: int, limit: int) -> Sequence[RoundDocument]:
        page = [entry for entry in self.rounds if entry.number > after][:limit] if self.knows_pages else self.rounds
        self.answered.append(len(page))
        return page

    def commit(self, count: int) -> None:
        self.rounds += [round_document(len(self.rounds) + n, {}, {}) for n in range(1, count + 1)]

    @property
    def document(self) -> FederationDocument:
        return federation_document(self.rounds)


@pytest.mark.parametrize("knows_pages", [True, False])
@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 1])
def test_all_rounds_are_read(count: int, knows_pages: bool) -> None:
    controller = Controller(knows_pages=knows_pages)
    controller.commit(count)
    assert read_rounds(controller.read) == controller.rounds


@given(commits=st.lists(st.integers(0, 3 * RECENT), max_size=8), knows_pages=st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_log_knows_what_the_controller_does(commits: list[int], knows_pages: bool) -> None:
    controller, log = Controller(knows_pages=knows_pages), RoundLog()
    for count in commits:
        controller.commit(count)
        assert log.follow(controller.document, controller.read) == controller.rounds


def test_a_look_costs_what_is_new() -> None:
    controller, log = Controller(), RoundLog()
    controller.commit(5 * PAGE)
    log.follow(controller.document, controller.read)
    controller.answered.clear()
    log.follow(controller.document, controller.read)
    assert controller.answered == []
    controller.commit(1)
    log.follow(controller.document, controller.read)
    assert controller.answered == [RECENT + 1]


def test_metrics_that_come_after_their_round_are_seen() -> None:
    controller, log = Controller(), RoundLog()
    controller.commit(3)
    before = controller.document.model_copy(update={"metrics": []})
    log.follow(before, controller.read)
    metric = MetricValue(name="accuracy", value=0.5, version=3, examples=10)
    controller.rounds[-1] = controller.rounds[-1].model_copy(update={"metrics": [metric]})
    after = before.model_copy(update={"metrics": [metric]})
    assert log.follow(after, controller.read)[-1].metrics == [metric]


def test_an_error_loses_nothing_and_is_made_good_by_the_next_look() -> None:
    controller, log = Controller(), RoundLog()
    controller.commit(2)
    log.follow(controller.document, controller.read)
    controller.commit(1)

    def fails(after: int, limit: int) -> Sequence[RoundDocument]:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        log.follow(controller.document, fails)
    assert log.known == controller.rounds[:2]
    assert log.follow(controller.document, controller.read) == controller.rounds


def test_rounds_that_a_new_controller_does_not_know_are_forgotten() -> None:
    controller, log = Controller(), RoundLog()
    controller.commit(3 * RECENT)
    log.follow(controller.document, controller.read)
    del controller.rounds[2:]
    assert log.follow(controller.document, controller.read) == controller.rounds

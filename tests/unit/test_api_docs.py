"""docs/api.md says what the code does."""

from __future__ import annotations

import re
import runpy
from enum import StrEnum
from pathlib import Path

import pytest

from metisfl.api.reasons import RunReason
from metisfl.spec.status import ConditionType
from metisfl_operator.reconcile.reasons import Reason

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "hack" / "api-docs"))


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == SCRIPT["api_docs"](), "stale: run hack/api-docs"


@pytest.mark.parametrize("words", [ConditionType, Reason, RunReason], ids=lambda words: words.__name__)
def test_every_word_is_explained(words: type[StrEnum]) -> None:
    assert [word for word, meaning in SCRIPT["documented"](words).items() if not meaning] == []


def test_the_controllers_reasons_are_those_it_gives() -> None:
    """They are texts in the state machine: a new one has to be explained."""
    folder = ROOT / "controller_service" / "metisfl_controller" / "rounds"
    given = {
        word
        for path in folder.rglob("*.py")
        for word in re.findall(r'(?:Conclusion|GiveUp|_end)\(\s*(?:False, |True, )?"([A-Za-z]+)"', path.read_text())
    }
    assert given
    assert given <= {str(word) for word in RunReason}

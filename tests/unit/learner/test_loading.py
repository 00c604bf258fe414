"""An entrypoint that cannot be used says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metisfl_learner import LearnerContext
from metisfl_learner.exits import ExitCode
from metisfl_learner.loading import EntrypointError, construct, load_class

GOOD = """
from metisfl_learner import Learner

class One(Learner):
    def initial_weights(self): ...
    def train(self, weights, task): ...
    def evaluate(self, weights): ...

class Two(One):
    def __init__(self, context):
        raise SystemExit("no licence")

class Half(Learner):
    def train(self, weights, task): ...

class Other: ...
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Puts code into a module of its own on the path; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def module(code: str) -> str:
        name = f"module_{abs(hash((code, tmp_path)))}"
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        return name

    return module


def test_class_is_found(write: Write) -> None:
    assert load_class(f"{write(GOOD)}:One").__name__ == "One"


@pytest.mark.parametrize(
    ("code", "class_name", "message"),
    [
        (GOOD, "Three", "has no class 'Three'; the learners in it are One, Two, Half"),
        ("", "One", "has no class 'One'; there is no learner in it"),
        (GOOD, "Other", "Other is not a learner; it must be a subclass of metisfl_learner.Learner"),
        (GOOD, "Half", "Half does not define evaluate, initial_weights"),
        ("import spam", "One", "needs the module 'spam', which is not installed"),
        ("1 / 0", "One", r"raised ZeroDivisionError: division by zero \(module_\d+\.py, line 1, in <module>\)"),
        ("raise SystemExit(1)", "One", "raised SystemExit: 1"),
        ("def f(:", "One", "raised SyntaxError: .*module_.*line 1"),
    ],
)
def test_what_is_wrong_is_named(write: Write, code: str, class_name: str, message: str) -> None:
    with pytest.raises(EntrypointError, match=message) as caught:
        load_class(f"{write(code)}:{class_name}")
    assert caught.value.code == ExitCode.ENTRYPOINT


@pytest.mark.parametrize("module", ["spam", "metisfl_learner.spam", "spam.eggs"])
def test_missing_module_is_named(module: str) -> None:
    with pytest.raises(
        EntrypointError, match=r"there is no module '.*spam'; in a cluster it must be in the learner image"
    ):
        load_class(f"{module}:One")


def test_constructor_that_raises_is_named_with_its_line(
    write: Write, make_context: Callable[..., LearnerContext]
) -> None:
    entrypoint = f"{write(GOOD)}:Two"
    with pytest.raises(EntrypointError, match=r"constructor raised SystemExit: no licence \(module_\d+\.py, line 11"):
        construct(entrypoint, load_class(entrypoint), make_context())

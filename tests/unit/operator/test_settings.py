from __future__ import annotations

import pytest

from metisfl_operator.settings import Settings, SettingsError

LEAST = {"METISFL_CONTROLLER_IMAGE": "c:1", "METISFL_LEARNER_IMAGE": "l:1"}


def test_defaults() -> None:
    assert Settings.from_environment(LEAST) == Settings("c:1", "l:1", "IfNotPresent", "json", ())


def test_namespaces() -> None:
    assert Settings.from_environment({**LEAST, "METISFL_NAMESPACES": "a,b"}).namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"METISFL_CONTROLLER_IMAGE": ""}, "METISFL_CONTROLLER_IMAGE is not set"),
        ({"METISFL_LEARNER_IMAGE": " "}, "METISFL_LEARNER_IMAGE is not set"),
        ({"METISFL_IMAGE_PULL_POLICY": "Maybe"}, "METISFL_IMAGE_PULL_POLICY is 'Maybe'; it must be one of Always"),
        ({"METISFL_LOG_FORMAT": "xml"}, "METISFL_LOG_FORMAT is 'xml'"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment(LEAST | change)

"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from metisfl_learner.settings import Settings, SettingsError

MINIMAL = {
    "METISFL_CONTROLLER": "controller.example:50051",
    "METISFL_ENTRYPOINT": "mine:Mine",
    "METISFL_LEARNER_GROUP": "silo-a",
    "METISFL_LEARNER_ORDINAL": "2",
}


def test_minimal() -> None:
    settings = Settings.from_environment(MINIMAL)
    assert settings == Settings("controller.example:50051", "mine:Mine", "silo-a", 2)


def test_everything() -> None:
    settings = Settings.from_environment(
        {
            **MINIMAL,
            "METISFL_STATE_DIR": "state",
            "METISFL_PARK_AFTER_STOP": "true",
            "METISFL_TERMINATION_LOG": "log",
            "METISFL_CONNECT_DEADLINE_SECONDS": "1.5",
            "METISFL_LOG_FORMAT": "json",
            "METISFL_LOG_LEVEL": "DEBUG",
        }
    )
    assert settings.state_dir == Path("state")
    assert settings.park_after_stop
    assert settings.termination_log == Path("log")
    assert settings.connect_deadline_seconds == 1.5
    assert (settings.log_format, settings.log_level) == ("json", "DEBUG")


def without_ordinal(**variables: str) -> dict[str, str]:
    return {**{k: v for k, v in MINIMAL.items() if k != "METISFL_LEARNER_ORDINAL"}, **variables}


def test_ordinal_is_the_number_at_the_end_of_the_pods_name() -> None:
    settings = Settings.from_environment(without_ordinal(METISFL_POD_NAME="digits-silo-a-12"))
    assert settings.ordinal == 12


def test_given_ordinal_wins_over_the_pods_name() -> None:
    assert Settings.from_environment({**MINIMAL, "METISFL_POD_NAME": "digits-silo-a-12"}).ordinal == 2


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({**MINIMAL, "METISFL_CONTROLLER": ""}, "METISFL_CONTROLLER is not set; it must be host:port"),
        ({**MINIMAL, "METISFL_CONTROLLER": "host"}, "METISFL_CONTROLLER is 'host'; it must be host:port"),
        ({**MINIMAL, "METISFL_ENTRYPOINT": "mine"}, "METISFL_ENTRYPOINT is 'mine'; it must be module:Class"),
        ({**MINIMAL, "METISFL_LEARNER_ORDINAL": "-1"}, "METISFL_LEARNER_ORDINAL is '-1'; it must be a number from 0"),
        (without_ordinal(), "neither METISFL_LEARNER_ORDINAL nor METISFL_POD_NAME is set"),
        (without_ordinal(METISFL_POD_NAME="pod"), "METISFL_POD_NAME is 'pod'; it must end in -<ordinal>"),
        ({**MINIMAL, "METISFL_PARK_AFTER_STOP": "yes"}, "it must be one of true, false"),
        ({**MINIMAL, "METISFL_CONNECT_DEADLINE_SECONDS": "0"}, "it must be a number of seconds above 0"),
        ({**MINIMAL, "METISFL_LOG_LEVEL": "LOUD"}, "METISFL_LOG_LEVEL is 'LOUD'"),
    ],
)
def test_problems_name_the_variable_and_what_is_allowed(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({})
    assert len(caught.value.problems) == 4

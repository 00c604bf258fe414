"""The processes of a federation and their settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

from metisfl.local.folder import RunFolder
from metisfl.local.plan import Endpoints, Surroundings, controller_launch, learner_launches
from metisfl.spec import Federation, parse_federation
from tests.unit.local.samples import YAML

FOLDER = RunFolder(Path("/runs/digits"))
ENDPOINTS = Endpoints(grpc="127.0.0.1:4001", http="127.0.0.1:4002")


def federation() -> Federation:
    return parse_federation(yaml.safe_load(YAML))


def surroundings(processors: int = 8, **environment: str) -> Surroundings:
    return Surroundings(environment, processors, [Path("/code/mine")])


def test_the_controller_gets_its_own_folder_and_free_loopback_ports() -> None:
    launch = controller_launch(federation(), FOLDER, surroundings(), "a-uid", None)
    assert launch.argv == (sys.executable, "-P", "-m", "metisfl_controller")
    assert launch.environment["METISFL_GRPC_ADDRESS"] == "127.0.0.1:0"
    assert launch.environment["METISFL_HTTP_ADDRESS"] == "127.0.0.1:0"
    assert launch.environment["METISFL_STATE_DIR"] == "/runs/digits"
    assert launch.environment["METISFL_FEDERATION_UID"] == "a-uid"
    assert "METISFL_THREADS" not in launch.environment


def test_a_controller_that_is_started_again_keeps_its_ports() -> None:
    launch = controller_launch(federation(), FOLDER, surroundings(), "a-uid", ENDPOINTS)
    assert launch.environment["METISFL_GRPC_ADDRESS"] == ENDPOINTS.grpc
    assert launch.environment["METISFL_HTTP_ADDRESS"] == ENDPOINTS.http


def test_there_is_one_learner_for_each_replica() -> None:
    launches = learner_launches(federation(), FOLDER, surroundings(), ENDPOINTS)
    assert [launch.name for launch in launches] == ["silo-a-0", "silo-a-1", "silo-b-0", "silo-b-1"]
    last = launches[-1].environment
    assert (last["METISFL_LEARNER_GROUP"], last["METISFL_LEARNER_ORDINAL"]) == ("silo-b", "1")
    assert last["METISFL_CONTROLLER"] == ENDPOINTS.grpc
    assert last["METISFL_STATE_DIR"] == "/runs/digits/learners/silo-b-1"


@pytest.mark.parametrize(("processors", "threads"), [(8, "2"), (2, "1"), (5, "1")])
def test_processors_are_shared_among_learners(processors: int, threads: str) -> None:
    launch = learner_launches(federation(), FOLDER, surroundings(processors), ENDPOINTS)[0]
    assert launch.environment["OMP_NUM_THREADS"] == threads


def test_what_the_user_set_for_threads_stays() -> None:
    launch = learner_launches(federation(), FOLDER, surroundings(8, OMP_NUM_THREADS="7"), ENDPOINTS)[0]
    assert launch.environment["OMP_NUM_THREADS"] == "7"


def test_code_beside_the_file_comes_before_the_users_own_path() -> None:
    launch = learner_launches(federation(), FOLDER, surroundings(PYTHONPATH="/else"), ENDPOINTS)[0]
    assert launch.environment["PYTHONPATH"] == os.pathsep.join(["/code/mine", "/else"])


def test_settings_of_the_users_shell_do_not_leak_in() -> None:
    around = surroundings(METISFL_STATE_DIR="/wrong", METISFL_LOG_LEVEL="DEBUG", METISFL_PARK_AFTER_STOP="true")
    for launch in (
        controller_launch(federation(), FOLDER, around, "a-uid", None),
        learner_launches(federation(), FOLDER, around, ENDPOINTS)[0],
    ):
        assert launch.environment["METISFL_STATE_DIR"] != "/wrong"
        assert launch.environment["METISFL_LOG_LEVEL"] == "DEBUG"
        assert "METISFL_PARK_AFTER_STOP" not in launch.environment


def test_loopback_never_goes_through_a_proxy() -> None:
    launch = learner_launches(federation(), FOLDER, surroundings(no_proxy="intranet"), ENDPOINTS)[0]
    assert launch.environment["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert launch.environment["NO_PROXY"] == "intranet,127.0.0.1,localhost"

"""The controller's process: how it starts, ends, and says why not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl_controller.settings import SettingsError

Environments = Callable[..., dict[str, str]]


def run(environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "metisfl_controller"],
        env={"PATH": os.environ["PATH"], **environment},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"METISFL_STATE_DIR": ""}, "metisfl_controller: METISFL_STATE_DIR is not set"),
        ({"METISFL_HTTP_ADDRESS": "8080"}, "METISFL_HTTP_ADDRESS=8080: expected host:port"),
        ({"METISFL_LOG_LEVEL": "loud"}, "METISFL_LOG_LEVEL=LOUD: expected one of DEBUG"),
        ({"METISFL_FEDERATION_FILE": "/no/such/file"}, "METISFL_FEDERATION_FILE=/no/such/file: No such file"),
    ],
)
def test_bad_settings_are_2(settings_of: Environments, changes: dict[str, str], words: str) -> None:
    status, said = run({**settings_of(), **changes})
    assert status == 2
    assert words in said
    assert "Traceback" not in said


def test_an_invalid_federation_is_2(settings_of: Environments) -> None:
    status, said = run(settings_of({"protocol": {"synchronous": {"quorumPercent": 101}}}))
    assert status == 2
    assert "invalid federation: spec.protocol.synchronous.quorumPercent" in said


def test_an_unreadable_partition_plan_is_2(settings_of: Environments, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"count": 0}')
    status, said = run(settings_of(METISFL_PARTITION_PLAN=str(plan)))
    assert status == 2
    assert f"METISFL_PARTITION_PLAN={plan}" in said
    assert "Traceback" not in said


def test_an_unusable_state_directory_is_3(settings_of: Environments, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    status, said = run(settings_of())
    assert status == 3
    assert f"cannot use the state directory {tmp_path / 'state'}" in said
    assert "Traceback" not in said


def test_a_foreign_state_directory_is_3(settings_of: Environments, tmp_path: Path) -> None:
    from metisfl_controller.state.store import Store

    Store(tmp_path / "state", "uid-1", "other").close()
    status, said = run(settings_of(METISFL_FEDERATION_UID="uid-2"))
    assert status == 3
    assert "holds another federation (uid uid-1, this one is uid-2)" in said


async def test_an_address_in_use_is_2_and_named(settings_of: Environments, served: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = run(settings_of(METISFL_GRPC_ADDRESS=address))
        assert status == 2
        assert f"METISFL_GRPC_ADDRESS: cannot listen on {address}" in said
        assert "Traceback" not in said
        with pytest.raises(SettingsError, match=f"METISFL_HTTP_ADDRESS: cannot listen on {address}"):
            await served(http=address).__aenter__()


async def test_a_second_controller_is_3_and_the_first_unharmed(
    controller: Callable[..., Any], settings_of: Environments, tmp_path: Path
) -> None:
    first = controller()
    first.environment["METISFL_LOG_FORMAT"] = "json"
    table = await first.start()
    status, said = run(settings_of(METISFL_ENDPOINT_FILE=str(tmp_path / "other.json")))
    assert status == 3
    assert "another controller is running on" in said
    player = table.player("a-0")
    await player.enter()
    assert (await player.receive()).kind == pb.TASK_KIND_WAIT
    assert await first.stop(signal.SIGINT) == 0
    # And its log is lines of JSON, with the federation in each.
    lines = [json.loads(line) for line in first.log.splitlines()]
    assert all(line["federation"] == "test" and line["time"] and line["level"] for line in lines)
    assert [line["learner"] for line in lines if line["message"] in ("joined", "ready")] == ["a-0", "a-0"]

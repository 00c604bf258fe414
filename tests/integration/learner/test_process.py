"""The real learner process: how it ends, with which status, and what it says."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb

LEARNER = """
import numpy as np
from metisfl_learner import Evaluation, Learner, TrainingResult

class Mine(Learner):
    train_examples = 10
    test_examples = 5

    def initial_weights(self):
        return {"w": np.zeros(4, np.float32)}

    def train(self, weights, task):
        BODY
        return TrainingResult({"w": weights["w"] + 1}, examples=10)

    def evaluate(self, weights):
        return Evaluation(5, {"accuracy": 0.5})
"""
TRAIN = pb.Task(
    task_id="t",
    kind=pb.TASK_KIND_TRAIN,
    round=3,
    model_version=2,
    training=pb.Training(epochs=1, batch_size=4, learning_rate=0.1, seed=1),
)


def learner(body: str = "pass") -> str:
    return LEARNER.replace("BODY", body)


async def test_stop_ends_with_0(controller: Any, launch: Any) -> None:
    process = launch(controller.address, "mine:Mine", learner())
    await controller.next_ready()
    controller.tasks.put_nowait(pb.Task(kind=pb.TASK_KIND_STOP, reason="all rounds are done"))
    assert (await controller.next_leave()).error == ""
    status, output = await process.finish()
    assert status == 0
    assert "all rounds are done" in output


async def test_parked_after_stop_until_sigterm(controller: Any, launch: Any) -> None:
    process = launch(controller.address, "mine:Mine", learner(), METISFL_PARK_AFTER_STOP="true")
    await controller.next_ready()
    controller.tasks.put_nowait(pb.Task(kind=pb.TASK_KIND_STOP))
    await controller.next_leave()
    assert process.process.poll() is None
    process.process.send_signal(signal.SIGTERM)
    assert (await process.finish())[0] == 0


@pytest.mark.parametrize(
    "body",
    ["while True: task.report(0.1)", "import time; time.sleep(60)"],
    ids=["training that listens", "training that does not listen"],
)
async def test_sigterm_in_mid_training_leaves_at_once(controller: Any, launch: Any, body: str) -> None:
    controller.serve(2, {"w": np.zeros(4, np.float32)})
    process = launch(controller.address, "mine:Mine", learner(body))
    await controller.next_ready()
    controller.tasks.put_nowait(TRAIN)
    await controller.heartbeat(lambda beat: beat.activity == pb.ACTIVITY_TRAINING)
    process.process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert (await controller.next_leave()).error == ""
    status, _ = await process.finish()
    assert status == 0
    assert time.monotonic() - started < 10


async def test_code_that_raises_is_reported_with_its_line(controller: Any, launch: Any, tmp_path: Path) -> None:
    controller.serve(2, {"w": np.zeros(4, np.float32)})
    explanation = tmp_path / "termination-log"
    process = launch(
        controller.address,
        "mine:Mine",
        learner("raise RuntimeError('no such ward')"),
        METISFL_TERMINATION_LOG=str(explanation),
    )
    controller.tasks.put_nowait(TRAIN)
    failure = (await controller.next_message()).failure
    assert failure.task_id == "t"
    leave = await controller.next_leave()
    status, output = await process.finish()
    assert status == 4
    for text in (failure.message, leave.error, output, explanation.read_text()):
        assert "train() raised RuntimeError: no such ward (mine.py, line 13, in train)" in text
        assert "round 3" in text
    assert "raise RuntimeError('no such ward')" in output, "the traceback is in the log"


async def test_result_of_nan_is_reported(controller: Any, launch: Any) -> None:
    controller.serve(2, {"w": np.zeros(4, np.float32)})
    body = "weights = {'w': weights['w'] * np.float32('nan')}"
    process = launch(controller.address, "mine:Mine", learner(body))
    controller.tasks.put_nowait(TRAIN)
    assert "nan or infinity in 4 of 4 values of tensor 'w'" in (await controller.next_leave()).error
    assert (await process.finish())[0] == 4


@pytest.mark.parametrize(
    ("entrypoint", "code", "message"),
    [
        ("not_there:Mine", "", "there is no module 'not_there'"),
        ("mine:Other", learner(), "has no class 'Other'; the learners in it are Mine"),
        ("mine:Mine", "class Mine: pass", "Mine is not a learner"),
        ("mine:Mine", "import not_installed", "needs the module 'not_installed'"),
        ("mine:Mine", learner().replace("train_examples", "spam"), "Mine does not set train_examples"),
        (
            "mine:Mine",
            learner() + "\n    def __init__(self, context):\n        1 / 0\n",
            "constructor raised ZeroDivisionError",
        ),
    ],
)
async def test_unusable_entrypoint_is_told_to_everyone(
    controller: Any, launch: Any, entrypoint: str, code: str, message: str
) -> None:
    process = launch(controller.address, entrypoint, code)
    assert message in (await controller.next_leave()).error
    status, output = await process.finish()
    assert status == 3
    assert message in output


async def test_refused_join(controller: Any, launch: Any, tmp_path: Path) -> None:
    controller.join_refusal = (grpc.StatusCode.FAILED_PRECONDITION, "no learner group 'silo'; there are: a, b")
    explanation = tmp_path / "termination-log"
    process = launch(controller.address, "mine:Mine", learner(), METISFL_TERMINATION_LOG=str(explanation))
    status, output = await process.finish()
    assert status == 5
    assert "no learner group 'silo'; there are: a, b" in output
    assert "no learner group 'silo'" in explanation.read_text()


async def test_wrong_settings(launch: Any, tmp_path: Path) -> None:
    explanation = tmp_path / "termination-log"
    process = launch(
        "no-port",
        "mine:Mine",
        METISFL_LEARNER_ORDINAL="x",
        METISFL_LOG_FORMAT="xml",
        METISFL_TERMINATION_LOG=str(explanation),
    )
    status, output = await process.finish()
    assert "METISFL_CONTROLLER is 'no-port'" in explanation.read_text()
    assert status == 2
    assert "METISFL_CONTROLLER is 'no-port'; it must be host:port" in output
    assert "METISFL_LEARNER_ORDINAL is 'x'" in output
    assert "METISFL_LOG_FORMAT is 'xml'; it must be one of json, text" in output
    assert "Traceback" not in output


async def test_unreachable_controller(controller: Any, launch: Any) -> None:
    await controller.stop()
    process = launch(controller.address, "mine:Mine", learner(), METISFL_CONNECT_DEADLINE_SECONDS="1")
    status, output = await process.finish()
    assert status == 6
    assert "could not be reached" in output


async def test_learner_that_starts_before_its_controller(controller: Any, launch: Any) -> None:
    await controller.stop()
    process = launch(controller.address, "mine:Mine", learner())
    lines = process.process.stdout
    assert "not connected" in await asyncio.to_thread(lines.readline)
    await controller.start()
    await controller.next_ready()


async def test_every_line_of_a_log_says_who_and_where(controller: Any, launch: Any) -> None:
    controller.serve(2, {"w": np.zeros(4, np.float32)})
    process = launch(controller.address, "mine:Mine", learner(), METISFL_LOG_FORMAT="json")
    controller.tasks.put_nowait(TRAIN)
    await controller.next_receipted()
    controller.tasks.put_nowait(pb.Task(kind=pb.TASK_KIND_STOP))
    _, output = await process.finish()
    lines = [json.loads(line) for line in output.splitlines()]
    assert all(line["learner"] == "silo-0" for line in lines)
    trained = next(line for line in lines if "trained 3 batches of 10 examples" in line["message"])
    assert (trained["federation"], trained["round"]) == ("test", 3)

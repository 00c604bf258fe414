"""How many threads a learner's numerical libraries use, in a process of its own: the limits are the process's."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, sys
import numpy as np, threadpoolctl
from metisfl import logs
from metisfl_learner import Learner, LearnerContext, PartitionPlace
from metisfl_learner.work import prepare
from metisfl_learner.worker import Worker

class Mine(Learner):
    train_examples, test_examples = 10, 0
    def initial_weights(self): return {"w": np.zeros(2, np.float32)}
    def train(self, weights, task): ...
    def evaluate(self, weights): ...

async def main():
    parameters = {} if sys.argv[1] == "-" else {"threads": sys.argv[1]}
    context = LearnerContext("silo-0", "test", parameters, PartitionPlace(0, 1), None, logs.logger("test"))
    worker = Worker()
    await worker.run(lambda: prepare("mine:Mine", Mine, context))
    pools = await worker.run(threadpoolctl.threadpool_info)
    print({pool["num_threads"] for pool in pools})

asyncio.run(main())
"""


def pools(threads: str) -> str:
    """Sizes of the thread pools as the learner's thread sees them."""
    command = [sys.executable, "-c", PROGRAM, threads]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_one_thread_unless_told_otherwise() -> None:
    assert pools("-") == "{1}"


def test_as_many_threads_as_the_parameter_says() -> None:
    assert pools("3") == "{3}"

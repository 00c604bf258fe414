"""The learner's thread: one call at a time, whatever its callers do."""

from __future__ import annotations

import asyncio
import threading

import pytest

from metisfl_learner.worker import Worker


async def test_calls_run_in_one_thread_in_order() -> None:
    worker, calls = Worker(), []

    def call(number: int) -> str:
        calls.append(number)
        return threading.current_thread().name

    names = await asyncio.gather(*(worker.run(lambda n=n: call(n)) for n in range(5)))  # type: ignore[misc]
    assert calls == [0, 1, 2, 3, 4]
    assert set(names) == {"learner"}
    assert not worker.busy


async def test_what_a_call_raises_reaches_its_caller() -> None:
    worker = Worker()
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 / 0)
    assert await worker.run(lambda: 1) == 1


async def test_cancelled_caller_leaves_a_running_call_and_drops_a_waiting_one() -> None:
    worker, begun, go_on, ran = Worker(), threading.Event(), threading.Event(), []

    def wait() -> None:
        begun.set()
        assert go_on.wait(10)
        ran.append("running")

    running = asyncio.create_task(worker.run(wait))
    waiting = asyncio.create_task(worker.run(lambda: ran.append("waiting")))
    await asyncio.to_thread(begun.wait, 10)
    running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert worker.busy
    go_on.set()
    await worker.run(lambda: ran.append("next"))
    assert ran == ["running", "next"]

"""Many reasons to look make one look; one federation is never looked at twice at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from metisfl_operator.pokes import Key, Pokes

A, B = ("ns", "a"), ("ns", "b")


class Looks:
    """Looks that take as long as the test wants, and notice when they overlap."""

    def __init__(self) -> None:
        self.begun: list[Key] = []
        self.ended: Counter[Key] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way: set[Key] = set()

    async def __call__(self, key: Key) -> None:
        assert key not in self.under_way, "two looks at one federation"
        self.under_way.add(key)
        self.begun.append(key)
        try:
            await self.gate.wait()
        finally:
            self.under_way.remove(key)
            self.ended[key] += 1


async def until(what: Callable[[], bool]) -> None:
    """Let other tasks run until it holds."""
    for _ in range(10_000):
        if what():
            return
        await asyncio.sleep(0)
    pytest.fail("never came true")


async def settle(pokes: Pokes) -> None:
    await until(lambda: not pokes._entries)


async def test_pokes_that_come_together_are_one() -> None:
    looks = Looks()
    pokes = Pokes(looks, settle_seconds=0)
    for _ in range(50):
        pokes.poke(A)
    pokes.poke(B)
    await settle(pokes)
    assert Counter(looks.begun) == {A: 1, B: 1}


async def test_a_poke_during_a_look_makes_another() -> None:
    looks = Looks()
    looks.gate.clear()
    pokes = Pokes(looks, settle_seconds=0)
    pokes.poke(A)
    await until(lambda: bool(looks.begun))
    pokes.poke(A)
    pokes.poke(A)
    looks.gate.set()
    await settle(pokes)
    assert looks.ended[A] == 2


async def test_run_waits_for_the_look_under_way_and_then_looks_itself() -> None:
    looks = Looks()
    looks.gate.clear()
    pokes = Pokes(looks, settle_seconds=0)
    first, second = asyncio.create_task(pokes.run(A)), asyncio.create_task(pokes.run(A))
    for _ in range(5):
        await asyncio.sleep(0)
    assert looks.begun == [A]
    looks.gate.set()
    await asyncio.gather(first, second)
    assert looks.ended[A] == 2


async def test_only_so_many_at_once() -> None:
    looks = Looks()
    looks.gate.clear()
    pokes = Pokes(looks, settle_seconds=0, at_once=2)
    tasks = [asyncio.create_task(pokes.run(("ns", str(number)))) for number in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(looks.under_way) == 2
    looks.gate.set()
    await asyncio.gather(*tasks)
    assert sum(looks.ended.values()) == 5


async def test_a_failure_reaches_who_asked_and_is_logged_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Key) -> None:
        raise RuntimeError("the server is away")

    pokes = Pokes(fail, settle_seconds=0)
    with pytest.raises(RuntimeError, match="the server is away"):
        await pokes.run(A)
    pokes.poke(A)
    await settle(pokes)
    assert "ns/a: will be tried again: the server is away" in caplog.text


async def test_closing_drops_what_has_not_begun() -> None:
    looks = Looks()
    pokes = Pokes(looks, settle_seconds=60)
    pokes.poke(A)
    await pokes.close()
    assert looks.begun == []

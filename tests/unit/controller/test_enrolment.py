"""Enrolments that wait for the operator to announce their pod."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from metisfl.logs import logger
from metisfl.tls.names import BootstrapIdentity
from metisfl_controller.security.audit import Audit
from metisfl_controller.security.enrolment import Enrolment
from metisfl_controller.security.ledger import Ledger, NotAnnouncedError

GROUP = BootstrapIdentity("uid", "a")


def enrolment() -> Enrolment:
    def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is signed or stored here")

    ledger = Ledger({"a": 2, "b": 1}, announced_groups={"a", "b"})
    return Enrolment("uid", ledger, nothing, timedelta(days=1), nothing, lambda: 0.0, Audit(nothing, lambda: 0.0, LOG))


LOG = logger("test")


async def test_no_more_wait_than_the_group_has_learners() -> None:
    calls = enrolment()
    first, second = (asyncio.create_task(calls._enrol(GROUP, k, f"pod-{k}", f"key-{k}")) for k in range(2))
    await asyncio.sleep(0)
    with pytest.raises(NotAnnouncedError, match="2 of the group are waiting already"):
        await calls._enrol(GROUP, 0, "another", "key")
    # Another group, and a pod that is announced, wait for nobody.
    other = asyncio.create_task(calls._enrol(BootstrapIdentity("uid", "b"), 0, "pod-b", "key-b"))
    await asyncio.sleep(0)
    assert not other.done()
    calls.ledger.announce({"a-0": "pod-0", "a-1": "announced", "b-0": "pod-b"})
    assert await calls._enrol(GROUP, 1, "announced", "key") == 1
    calls.ledger.announce({"a-0": "pod-0", "a-1": "pod-1", "b-0": "pod-b"})
    assert await asyncio.wait_for(asyncio.gather(first, second, other), 10) == [0, 1, 0]


async def test_a_call_that_ends_makes_room() -> None:
    calls = enrolment()
    group = BootstrapIdentity("uid", "b")
    given_up = asyncio.create_task(calls._enrol(group, 0, "pod", "key"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    waiting = asyncio.create_task(calls._enrol(group, 0, "pod", "key"))
    await asyncio.sleep(0)
    calls.ledger.announce({"b-0": "pod"})
    assert await asyncio.wait_for(waiting, 10) == 0

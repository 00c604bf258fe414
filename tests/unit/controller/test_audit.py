"""The audit trail: what callers say about themselves stays on its line."""

from __future__ import annotations

from metisfl.logs import logger
from metisfl_controller.security.audit import Action, Audit, AuditEntry
from metisfl_controller.state.records import StateError


async def test_nobody_writes_lines_of_its_own_into_the_trail() -> None:
    written: list[AuditEntry] = []
    audit = Audit(written.extend, lambda: 1.0, logger("test"))
    audit.record(Action.CALL_REFUSED, "a-0\n12:00:00 INFO audit: Joined b-0", "ipv4:1.2.3.4:5", "für\r\x1b[31m…")
    await audit.flush()
    assert [(entry.learner, entry.detail) for entry in written] == [
        ("a-0?12:00:00 INFO audit: Joined b-0", "für??[31m…")
    ]


async def test_entries_wait_while_the_disk_fails() -> None:
    written: list[AuditEntry] = []
    broken = True

    def write(entries: list[AuditEntry]) -> None:
        if broken:
            raise StateError("database or disk is full")
        written.extend(entries)

    audit = Audit(write, lambda: 1.0, logger("test"))
    for learner in ("a-0", "a-1"):
        audit.record(Action.JOINED, learner, "")
        await audit.flush()
    assert written == []
    broken = False
    audit.record(Action.JOINED, "a-2", "")
    await audit.flush()
    assert [entry.learner for entry in written] == ["a-0", "a-1", "a-2"]

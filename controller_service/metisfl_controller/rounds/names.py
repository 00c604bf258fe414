"""Learners' names, `<group>-<ordinal>`, in the order people expect."""

from __future__ import annotations

from collections.abc import Iterable


def by_number(learners: Iterable[str]) -> list[str]:
    """Learners in their natural order: `silo-a-2` before `silo-a-10`."""
    return sorted(learners, key=_number)


def _number(learner: str) -> tuple[str, int]:
    group, _, ordinal = learner.rpartition("-")
    return (group, int(ordinal)) if ordinal.isdigit() else (learner, 0)

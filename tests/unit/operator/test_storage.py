"""What is written on a Federation for kopf's sake: little, and only about its spec."""

from __future__ import annotations

from typing import Any

import kopf

from metisfl_operator.storage import SpecDigestStorage


def essence(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    body = kopf.Body({"metadata": {"name": "demo", **metadata}, "spec": spec, "status": {"currentRound": 1}})
    found: dict[str, Any] = SpecDigestStorage().build(body=body)
    return found


def test_a_changed_spec_is_a_change() -> None:
    assert essence({"suspend": False}) == essence({"suspend": False})
    assert essence({"suspend": False}) != essence({"suspend": True})


def test_anything_else_is_none() -> None:
    assert essence({}) == essence({}, labels={"a": "b"}, annotations={"c": "d"})


def test_the_largest_spec_leaves_a_small_note() -> None:
    assert len(str(essence({"learnerGroups": ["x" * 1_000_000]}))) < 100


def test_what_is_stored_is_read_back() -> None:
    storage, patch = SpecDigestStorage(), kopf.Patch()
    body = kopf.Body({"metadata": {"name": "demo"}, "spec": {"suspend": True}})
    storage.store(body=body, patch=patch, essence=storage.build(body=body))
    stored = kopf.Body({"metadata": {"name": "demo", "annotations": dict(patch["metadata"]["annotations"])}})
    assert storage.fetch(body=stored) == storage.build(body=body)

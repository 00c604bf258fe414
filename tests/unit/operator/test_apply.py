"""What counts as a difference worth a write."""

from __future__ import annotations

from typing import Any

import pytest

from metisfl_operator.reconcile.apply import has_additions, holds


@pytest.mark.parametrize(
    ("wanted", "current"),
    [
        ({"a": 1}, {"a": 1, "status": "theirs"}),
        ({"list": [{"a": 1}]}, {"list": [{"a": 1, "default": 2}]}),
        ({"resources": {}}, {}),
        ({"ingress": []}, {}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}),
    ],
    ids=str,
)
def test_defaults_of_the_server_are_no_difference(wanted: Any, current: Any) -> None:
    assert holds(wanted, current)
    assert not has_additions(wanted, current)


@pytest.mark.parametrize(
    ("wanted", "current"),
    [
        ({"a": 1}, {}),
        ({"a": 1}, {"a": 2}),
        ({"a": {"b": 1}}, {"a": None}),
        ({"list": [1, 2]}, {"list": [2, 1]}),
        ({"list": [1]}, {"list": []}),
        ({"list": []}, {"list": [1]}),
        ({"a": "1"}, {"a": 1}),
    ],
    ids=str,
)
def test_anything_else_is(wanted: Any, current: Any) -> None:
    assert not holds(wanted, current)


def test_what_others_add_to_a_list_is_seen() -> None:
    wanted = {"spec": {"ports": [{"name": "grpc", "port": 1}]}}
    current = {"spec": {"ports": [{"name": "grpc", "port": 1}, {"name": "mine", "port": 2}]}}
    assert not holds(wanted, current)
    assert has_additions(wanted, current)

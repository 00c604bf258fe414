"""Every example of the documentation is one that works, and every part of a spec has one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from metisfl.spec import parse_federation
from metisfl.spec.crd import schema
from metisfl.spec.examples import EXAMPLES

MINIMAL: dict[str, Any] = {"learner": {"entrypoint": "m:C"}, "learnerGroups": [{"name": "a", "replicas": 4}]}


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_makes_a_valid_federation_and_is_kept_as_it_is(path: str) -> None:
    value: Any = yaml.safe_load(EXAMPLES[path])
    part = value
    for key in reversed(path.split(".")):
        part = {key: part}
    parsed = parse_federation(
        {
            "apiVersion": "metisfl.dev/v1alpha1",
            "kind": "Federation",
            "metadata": {"name": "sample"},
            "spec": {**MINIMAL, **part},
        }
    )
    kept: Any = parsed.spec.model_dump(mode="json", by_alias=True)
    for key in path.split("."):
        kept = kept[key]
    assert holds(value, kept)


def holds(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and holds(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return all(holds(*pair) for pair in zip(part, whole, strict=True))
    return bool(part == whole)


def test_every_part_of_a_spec_has_an_example_that_kubectl_explain_shows() -> None:
    parts = {
        name: node
        for name, node in schema()["properties"]["spec"]["properties"].items()
        if node["type"] in ("object", "array")
    }
    assert parts.keys() - EXAMPLES.keys() == set()
    for name, node in parts.items():
        assert EXAMPLES[name] in node["description"]

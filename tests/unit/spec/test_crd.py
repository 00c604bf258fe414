"""The generated CRD: bounded everywhere, documented everywhere, and never older than the models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from metisfl.spec.crd import crd, crd_yaml, schema
from metisfl.spec.rules import FIXED, RULES
from metisfl.spec.status import ConditionType

ROOT = Path(__file__).parents[3]
NOT_STRUCTURAL = {"$ref", "$defs", "anyOf", "allOf", "oneOf", "const", "title", "propertyNames", "patternProperties"}


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if keyword in node:
            yield from nodes(node[keyword], path + mark)


def under(*prefixes: str) -> list[Any]:
    found = [(path, node) for path, node in nodes(schema()) if path.startswith(prefixes)]
    return [pytest.param(node, id=path) for path, node in found]


@pytest.mark.parametrize("node", under(""))
def test_structural(node: dict[str, Any]) -> None:
    assert not NOT_STRUCTURAL & node.keys()
    assert node["type"] in {"object", "array", "string", "integer", "boolean"}  # and no floats
    assert node.get("additionalProperties") is not False
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        assert node.get(bound, True) is True


@pytest.mark.parametrize("node", under(".spec", ".status"))
def test_bounded(node: dict[str, Any]) -> None:
    """The API server estimates the cost of a rule by these bounds, and etcd has to hold what they allow."""
    match node["type"]:
        case "string":
            assert {"maxLength", "enum"} & node.keys() or node.get("format") == "date-time"
        case "integer":
            assert "minimum" in node
        case "array":
            assert "maxItems" in node
        case "object":
            assert {"properties", "maxProperties"} & node.keys()


@pytest.mark.parametrize("node", under(".spec."))
def test_spec_numbers_have_both_bounds(node: dict[str, Any]) -> None:
    assert node["type"] != "integer" or {"minimum", "maximum"} <= node.keys()


def test_every_field_of_the_spec_is_explained() -> None:
    silent = [path for path, node in nodes(schema()) if not node.get("description") and path.count(".") > 1]
    # Elements of lists and maps are explained where the list is.
    assert [path for path in silent if not path.endswith(("[]", "{}"))] == []


def test_every_rule_is_in_the_schema() -> None:
    written = {rule["message"] for _, node in nodes(schema()) for rule in node.get("x-kubernetes-validations", [])}
    assert {rule.message for rule in RULES if rule.cel} | {fixed.message for fixed in FIXED} <= written


def test_groups_are_a_map_keyed_by_name() -> None:
    groups = schema()["properties"]["spec"]["properties"]["learnerGroups"]
    assert groups["x-kubernetes-list-type"] == "map"
    assert groups["x-kubernetes-list-map-keys"] == ["name"]


def test_conditions_are_full_metav1_conditions() -> None:
    condition = schema()["properties"]["status"]["properties"]["conditions"]["items"]
    assert set(condition["properties"]) == {
        "type",
        "status",
        "reason",
        "message",
        "observedGeneration",
        "lastTransitionTime",
    }
    assert condition["properties"]["status"]["enum"] == ["True", "False", "Unknown"]
    assert all(word in condition["properties"]["type"]["description"] for word in ConditionType)


def test_the_status_is_a_subresource() -> None:
    (version,) = crd()["spec"]["versions"]
    assert version["subresources"] == {"status": {}}


@pytest.mark.parametrize(
    ("copy", "rules"),
    [
        ("manifests/crd/federations.yaml", True),
        ("charts/metisfl/files/federations.yaml", True),
        ("charts/metisfl/files/federations-before-1.25.yaml", False),
    ],
)
def test_copies_are_fresh(copy: str, rules: bool) -> None:
    assert (ROOT / copy).read_text() == crd_yaml(rules=rules), f"{copy} is stale: run hack/crd"


def test_without_rules_there_is_no_cel() -> None:
    assert "x-kubernetes-validations" in crd_yaml()
    assert "x-kubernetes-validations" not in crd_yaml(rules=False)


def test_yaml_says_the_same() -> None:
    assert yaml.safe_load(crd_yaml()) == crd()

"""One fixture for each thing pydantic emits that a structural schema may not hold."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from metisfl.spec.structural import UnsupportedSchemaError, structural_schema


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Single(StrEnum):
    ONLY = "Only"


class Inner(BaseModel):
    """An inner
    object."""

    model_config = ConfigDict(extra="forbid")
    size: Annotated[int, Field(ge=1, le=9)] = 3


class Member(BaseModel):
    depth: int = Field(default=2, description="How deep.")
    inner: Inner = Inner()


class Chosen(BaseModel):
    type: Colour = Colour.RED
    red: Member | None = None


class Recursive(BaseModel):
    child: Recursive | None = None


def field(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The schema of one field of that type, in a model of its own."""
    model = type("Model", (BaseModel,), {"__annotations__": {"f": annotation}, "f": Field(default)})
    found: dict[str, Any] = structural_schema(model)["properties"]["f"]
    return found


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"type": "integer"}),
        (bool, {"type": "boolean"}),
        (Annotated[int, Field(gt=0, lt=5)], {
            "type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": True,
        }),
        (Annotated[int, Field(ge=0, le=5)], {"type": "integer", "minimum": 0, "maximum": 5}),
        (Annotated[str, StringConstraints(pattern="^a$", min_length=1, max_length=2)], {
            "type": "string", "pattern": "^a$", "minLength": 1, "maxLength": 2,
        }),
        (Literal["a"], {"type": "string", "enum": ["a"]}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Single, {"type": "string", "enum": ["Only"]}),
        (Colour, {"type": "string", "enum": ["Red", "Blue"]}),
        (int | None, {"type": "integer"}),
        (Inner, {
            "type": "object", "description": "An inner object.",
            "properties": {"size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3}},
        }),
        (Annotated[list[Inner], Field(max_length=4)], {
            "type": "array", "maxItems": 4, "items": {
                "type": "object", "description": "An inner object.",
                "properties": {"size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3}},
            },
        }),
        (Annotated[dict[str, int], Field(max_length=4)], {
            "type": "object", "maxProperties": 4, "additionalProperties": {"type": "integer"},
        }),
        (dict[Annotated[str, StringConstraints(pattern="^k")], int], {
            "type": "object", "additionalProperties": {"type": "integer"},
        }),
        (dict[str, Any], {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        (list[dict[str, Any]], {
            "type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        }),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value)[:40],
)  # fmt: skip
def test_construct(annotation: Any, expected: dict[str, Any]) -> None:
    assert field(annotation) == expected


def test_optional_object_keeps_its_own_description() -> None:
    annotation = Annotated[Inner | None, Field(description="Beside\nthe reference.")]
    assert field(annotation, None)["description"] == "Beside the reference."


@pytest.mark.parametrize(("annotation", "empty"), [(int | None, None), (list[int], []), (dict[str, int], {})], ids=str)
def test_an_empty_default_is_left_out(annotation: Any, empty: Any) -> None:
    assert "default" not in field(annotation, empty)


def test_absent_parts_of_a_default_are_left_out() -> None:
    class Model(BaseModel):
        chosen: Chosen = Chosen()

    assert structural_schema(Model)["properties"]["chosen"]["default"] == {"type": "Red"}


def test_defaults_of_union_members_move_to_the_description() -> None:
    member = field(Chosen)["properties"]["red"]
    assert member["properties"]["depth"] == {"type": "integer", "description": "How deep. Default: 2."}
    assert "default" not in member["properties"]["inner"]
    assert "default" not in member["properties"]["inner"]["properties"]["size"]


def test_the_discriminator_keeps_its_default() -> None:
    assert field(Chosen)["properties"]["type"]["default"] == "Red"


def test_required_fields_stay_required() -> None:
    class Model(BaseModel):
        needed: int
        other: int = 1

    assert structural_schema(Model)["required"] == ["needed"]


def test_extensions_pass_through() -> None:
    annotation = Annotated[list[Inner], Field(json_schema_extra={"x-kubernetes-list-type": "map"})]
    assert field(annotation)["x-kubernetes-list-type"] == "map"


def test_an_open_model_keeps_unknown_fields() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        known: int

    schema = field(Open)
    assert schema["x-kubernetes-preserve-unknown-fields"] is True
    assert "known" in schema["properties"]


def test_a_union_is_refused() -> None:
    with pytest.raises(UnsupportedSchemaError, match=r"Model\.f: one field may have one type, and this has 2"):
        field(int | str)


def test_recursion_is_refused() -> None:
    with pytest.raises(UnsupportedSchemaError, match="contains itself"):
        structural_schema(Recursive)


def test_an_unknown_keyword_is_refused_and_not_dropped() -> None:
    with pytest.raises(UnsupportedSchemaError, match="no place for 'uniqueItems'"):
        field(set[int])

"""From a pydantic model to a Kubernetes structural schema.

A structural schema (OpenAPI 3.0, as apiextensions.k8s.io/v1 wants it) holds no references, no unions with null, no
`const`, no numeric `exclusiveMinimum` and no closed `additionalProperties`; pydantic emits all of these. What cannot
be said in a structural schema is refused here, so that the two never drift apart silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT = frozenset(
    {"type", "format", "description", "enum", "required", "pattern", "minLength", "maxLength", "minimum", "maximum"}
    | {"multipleOf", "minItems", "maxItems", "minProperties", "maxProperties"}
)
_DROPPED = frozenset({"title", "propertyNames", "$defs"})
_EXTENSION = "x-kubernetes-"
_ANYTHING: Schema = {"type": "object", f"{_EXTENSION}preserve-unknown-fields": True}


class UnsupportedSchemaError(TypeError):
    """A model uses something that a structural schema cannot express."""


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, keyed by its aliases. Raises UnsupportedSchemaError."""
    schema = model.model_json_schema(by_alias=True)
    return _Rewriter(schema.get("$defs", {})).rewrite(schema, model.__name__)


class _Rewriter:
    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._open: list[str] = []

    def rewrite(self, node: Schema, where: str) -> Schema:
        if "$ref" in node:
            return self._inline(node, where)
        if "anyOf" in node:
            return self._optional(node, where)
        if node.get("type") == "object" and not node.get("properties"):
            return self._map(node, where)
        result: Schema = {}
        for keyword, value in node.items():
            self._keyword(result, keyword, value, where)
        if node.get("type") == "object":
            _strip_defaults_of_union_members(result)
        return result

    def _keyword(self, result: Schema, keyword: str, value: Any, where: str) -> None:
        match keyword:
            case "properties":
                result["properties"] = {name: self.rewrite(child, f"{where}.{name}") for name, child in value.items()}
            case "items":
                result["items"] = self.rewrite(value, f"{where}[]")
            case "const":
                result["enum"] = [value]
            case "exclusiveMinimum" | "exclusiveMaximum":
                bound = keyword.removeprefix("exclusive").lower()
                result[bound], result[keyword] = value, True
            case "default":
                if (default := _without_nothing(value)) is not None:
                    result["default"] = default
            case "description":
                result["description"] = " ".join(value.split())
            case "additionalProperties":
                # Unknown fields are pruned or refused by the API server; an object that is open keeps them.
                if value is not False:
                    result[f"{_EXTENSION}preserve-unknown-fields"] = True
            case _ if keyword in _KEPT or keyword.startswith(_EXTENSION):
                result[keyword] = value
            case _ if keyword not in _DROPPED:
                raise UnsupportedSchemaError(f"{where}: a structural schema has no place for '{keyword}'")

    def _inline(self, node: Schema, where: str) -> Schema:
        name = node["$ref"].removeprefix("#/$defs/")
        if name in self._open:
            raise UnsupportedSchemaError(f"{where}: {name} contains itself, and a structural schema must be finite")
        self._open.append(name)
        try:
            beside = {keyword: value for keyword, value in node.items() if keyword != "$ref"}
            return self.rewrite({**self._definitions[name], **beside}, where)
        finally:
            self._open.pop()

    def _optional(self, node: Schema, where: str) -> Schema:
        members = [member for member in node["anyOf"] if member != {"type": "null"}]
        if len(members) != 1:
            raise UnsupportedSchemaError(f"{where}: one field may have one type, and this has {len(members)}")
        beside = {keyword: value for keyword, value in node.items() if keyword != "anyOf"}
        return self.rewrite({**members[0], **beside}, where)

    def _map(self, node: Schema, where: str) -> Schema:
        """An object without fixed keys: from any text to one kind of value, or to anything."""
        node = dict(node)
        patterns = node.pop("patternProperties", None)
        values = node.pop("additionalProperties", True)
        if patterns:
            # Keys cannot be described in a structural schema; the models judge them.
            (values,) = patterns.values()
        result = self.rewrite({**node, "properties": {"": {}}}, where)
        del result["properties"]
        if values in (True, {}):
            return {**result, **_ANYTHING}
        return {**result, "additionalProperties": self.rewrite(values, f"{where}{{}}")}


def _without_nothing(value: Any) -> Any:
    """A default without nulls, which the API server refuses, and without what is empty; None when nothing is left."""
    if isinstance(value, dict):
        kept = {key: found for key, child in value.items() if (found := _without_nothing(child)) is not None}
        return kept or None
    if isinstance(value, list):
        return [_without_nothing(child) for child in value] or None
    return value


def _strip_defaults_of_union_members(node: Schema) -> None:
    """Beside an enum called `type`, optional objects are the members it chooses from.

    A default in one would be written into objects whose type names another; it moves to the description instead.
    """
    properties: dict[str, Schema] = node.get("properties", {})
    if "enum" not in properties.get("type", {}):
        return
    for name, member in properties.items():
        if name not in node.get("required", []) and "properties" in member and "default" not in member:
            _defaults_to_descriptions(member)


def _defaults_to_descriptions(node: Schema) -> None:
    for child in node.get("properties", {}).values():
        if "default" in child:
            default = child.pop("default")
            child["description"] = f"{child.get('description', '')} Default: {default}.".strip()
        _defaults_to_descriptions(child)

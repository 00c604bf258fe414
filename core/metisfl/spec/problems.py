"""Sentences about what is wrong with a Federation, for the person who wrote it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from metisfl.spec import fields, pods
from metisfl.spec.paths import keys_of, model_at
from metisfl.spec.rule import BrokenRulesError

_MAX_SHOWN = 80

# What each pattern asks for, in words and with an example.
_PATTERNS: dict[str, str] = {
    fields.DECIMAL_PATTERN: "a decimal number that is not negative, such as '0.05'",
    fields.SIGNED_DECIMAL_PATTERN: "a decimal number, such as '0.97' or '-1.5'",
    fields.POSITIVE_DECIMAL_PATTERN: "a decimal number above 0, such as '1.5'",
    fields.FRACTION_PATTERN: "a decimal number above 0 and at most 1, such as '0.01'",
    fields.NAME_PATTERN: "lower-case letters, digits and '-', with a letter or digit at both ends, such as 'silo-a'",
    fields.QUANTITY_PATTERN: "a quantity of bytes, such as '512Mi' or '10Gi'",
    fields.MEMORY_PATTERN: "an amount of memory with its unit, such as '512Mi' or '4Gi'",
    fields.ENTRYPOINT_PATTERN: "module:Class, such as 'my_learner:MyLearner'",
    fields.METRIC_PATTERN: "letters, digits and '_', not starting with a digit, such as 'accuracy'",
    pods.ENV_NAME_PATTERN: "letters, digits, '_', '.' and '-', not starting with a digit, such as 'HTTPS_PROXY'",
    fields.PARAMETER_KEY_PATTERN: "letters, digits, '_', '.' and '-', starting with a letter or '_', such as 'alpha'",
}

_WANTED_TYPES: dict[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


class SpecError(ValueError):
    """A Federation that is not valid; `problems` holds one line for each thing that is wrong."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def problems_of(error: ValidationError, root: type[Any]) -> list[str]:
    """One `path: what is wrong; what is allowed` line for each problem pydantic found in an object of type `root`."""
    return [line for detail in error.errors(include_url=False) for line in _lines(detail, root)]


def path_text(location: Iterable[str | int]) -> str:
    """`spec.learnerGroups[0].name`, as users know it from kubectl."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[\w$/-]+", part) else repr(part)
            text += f".{key}" if text else key
    return text or "(document)"


def shown(value: object) -> str:
    """A value as it can stand in a sentence: one line, not too long."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "an empty value"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate the writer most likely meant."""
    by_folded = {candidate.lower().replace("_", ""): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.lower().replace("_", ""), by_folded, n=1, cutoff=0.7)
    return by_folded[found[0]] if found else None


def _lines(detail: ErrorDetails, root: type[Any]) -> list[str]:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    location = tuple(part for part in detail["loc"] if part != "[key]")
    path = path_text(location)
    if kind == "value_error":
        cause = context.get("error")
        return list(cause.problems) if isinstance(cause, BrokenRulesError) else [f"{path}: {cause or detail['msg']}"]
    if kind == "json_invalid":
        return [f"{path}: cannot be read: {context.get('error', detail['msg'])}"]
    if kind == "extra_forbidden":
        return [f"{path}: unknown field; {_known_fields(location, root)}"]
    if kind == "missing":
        return [f"{path}: required, and missing{_written_wrongly(str(location[-1]), value)}"]
    if kind in ("enum", "literal_error"):
        return [f"{path}: {shown(value)} is not supported; allowed: {context['expected']}"]
    if kind == "string_pattern_mismatch":
        wanted = _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
        return [f"{path}: {shown(value)} is not allowed; it must be {wanted}"]
    if kind in _WANTED_TYPES:
        return [f"{path}: {_wrong_type(kind, value)}"]
    return [f"{path}: {_out_of_bounds(kind, context, value) or _other(detail)}"]


def _known_fields(location: tuple[int | str, ...], root: type[Any]) -> str:
    model = model_at(root, location[:-1])
    known = keys_of(model) if model else []
    meant = closest(str(location[-1]), known)
    return f"did you mean '{meant}'?" if meant else f"allowed here: {', '.join(known)}"


def _written_wrongly(wanted: str, found: object) -> str:
    meant = closest(wanted, (str(key) for key in found)) if isinstance(found, Mapping) else None
    return f"; is '{meant}' meant to be it?" if meant else ""


def _wrong_type(kind: str, value: object) -> str:
    wanted = _WANTED_TYPES[kind]
    text = f"{shown(value)} is {_type_name(value)} where {wanted} is needed"
    if value is None or isinstance(value, (Mapping, list)):
        text = f"{shown(value)} where {wanted} is needed"
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f'{text}; write it in quotes: "{_as_text(value)}"'
    if kind == "int_type" and isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value):
        return f"{text}; write it without quotes: {value}"
    return text


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "a truth value"
    return "a number" if isinstance(value, (int, float)) else "text"


def _as_text(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return format(Decimal(repr(value)), "f")


def _out_of_bounds(kind: str, context: Mapping[str, Any], value: object) -> str | None:
    match kind:
        case "greater_than_equal":
            return f"{shown(value)} is not allowed; it must be at least {context['ge']}"
        case "less_than_equal":
            return f"{shown(value)} is not allowed; it must be at most {context['le']}"
        case "string_too_long":
            return f"{shown(value)} is too long; at most {context['max_length']} characters are allowed"
        case "string_too_short":
            return f"{shown(value)} is too short; at least {context['min_length']} characters are needed"
        case "too_long":
            return f"has {context['actual_length']} entries; at most {context['max_length']} are allowed"
        case "too_short":
            return f"has {context['actual_length']} entries; at least {context['min_length']} are needed"
    return None


def _other(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value should ")
    return f"{shown(detail['input'])} is not allowed; it must be {message}"

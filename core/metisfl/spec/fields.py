"""Field types of the Federation object: bounded strings, decimal strings, Kubernetes names and quantities.

Kubernetes objects hold no floats (API conventions), so real numbers are decimal strings here and are read with
`Decimal` where they are used.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

DECIMAL_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,12})?$"
SIGNED_DECIMAL_PATTERN = r"^-?[0-9]{1,9}(\.[0-9]{1,12})?$"
# Above 0 and at most 1.
FRACTION_PATTERN = r"^(0\.[0-9]{0,11}[1-9][0-9]{0,11}|1(\.0{1,12})?)$"
POSITIVE_DECIMAL_PATTERN = r"^(0\.[0-9]{0,11}[1-9][0-9]{0,11}|[1-9][0-9]{0,8}(\.[0-9]{1,12})?)$"
BELOW_HALF_PATTERN = r"^0(\.[0-4][0-9]{0,11})?$"
BELOW_ONE_PATTERN = r"^0(\.[0-9]{1,12})?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
# The binary and decimal suffixes of resource.Quantity that make sense for storage.
QUANTITY_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,3})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
# Of memory: at least a million bytes, as anything less is a slip of the pen.
MEMORY_PATTERN = r"^[1-9][0-9]{0,5}(\.[0-9]{1,3})?(M|G|T|Mi|Gi|Ti)$"
ENTRYPOINT_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
METRIC_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
PARAMETER_KEY_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]*$"

DecimalString = Annotated[str, StringConstraints(pattern=DECIMAL_PATTERN, max_length=24)]
SignedDecimalString = Annotated[str, StringConstraints(pattern=SIGNED_DECIMAL_PATTERN, max_length=24)]
PositiveDecimalString = Annotated[str, StringConstraints(pattern=POSITIVE_DECIMAL_PATTERN, max_length=24)]
DecimalBelowOne = Annotated[str, StringConstraints(pattern=BELOW_ONE_PATTERN, max_length=24)]
DecimalBelowHalf = Annotated[str, StringConstraints(pattern=BELOW_HALF_PATTERN, max_length=24)]
PositiveFraction = Annotated[str, StringConstraints(pattern=FRACTION_PATTERN, max_length=24)]
GroupName = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=20)]
ObjectName = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=63)]
Quantity = Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN, max_length=20)]
MemoryQuantity = Annotated[str, StringConstraints(pattern=MEMORY_PATTERN, max_length=20)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
Image = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Entrypoint = Annotated[str, StringConstraints(pattern=ENTRYPOINT_PATTERN, max_length=253)]
MetricName = Annotated[str, StringConstraints(pattern=METRIC_PATTERN, min_length=1, max_length=63)]
ParameterKey = Annotated[str, StringConstraints(pattern=PARAMETER_KEY_PATTERN, max_length=63)]
ParameterValue = Annotated[str, StringConstraints(max_length=1024)]
Parameters = Annotated[dict[ParameterKey, ParameterValue], Field(max_length=64)]

# Parts of a pod that are Kubernetes' own; the API server validates them when the pod is applied.
PodPart = Annotated[dict[str, Any], Field(max_length=64)]


class SpecModel(BaseModel):
    """Base of everything under `spec`: camelCase keys, unknown keys refused, values immutable once parsed."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


_UNITS = {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")} | {
    f"{prefix}{binary}": Decimal((1024 if binary else 1000) ** power)
    for power, prefix in enumerate("KMGTPE", 1)
    for binary in ("", "i")
}


def quantity_bytes(text: str) -> int:
    """The bytes that a quantity such as '512Mi', '1.5G' or '1000' stands for, rounded down.

    All forms in which an API server writes one are read, also '1e9' and '1074815565824m'.
    """
    number = text.rstrip("numkKMGTPEi")
    return int(Decimal(number) * _UNITS[text[len(number) :].replace("k", "K")])


def decimal(text: str) -> Decimal:
    """The number a decimal string stands for."""
    return Decimal(text)

"""From `spec.aggregation` to the rule that it names."""

from __future__ import annotations

from collections.abc import Callable

from metisfl.spec.aggregation import AggregationRule, AggregationSpec
from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer
from metisfl_controller.aggregation.rule import Rule
from metisfl_controller.aggregation.rules.fedavg import FedAvg


def rule_of(spec: AggregationSpec, encoding: Encoding, allocate: Callable[[int], Buffer]) -> Rule:
    """The rule for uploads of this encoding. `allocate` makes zeroed, 64-byte aligned buffers for models and whatever
    else the rule keeps of their size; it may raise OSError."""
    match spec.rule:
        case AggregationRule.FED_AVG:
            return FedAvg(encoding, updates=encoding.updates, allocate=allocate)

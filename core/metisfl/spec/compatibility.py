"""Which parts of `spec` do not go together, and why."""

from __future__ import annotations

from typing import Any

from metisfl.spec.protocol import LateUpdates, ProtocolType
from metisfl.spec.rule import Json, Rule

_WITHOUT_ROUNDS = ("FedAvg", "FedStride", "FedNova", "FedRec")
"""Rules that need not see a round's updates together."""


def _protocol(spec: Json) -> str:
    return str(spec.get("protocol", {}).get("type", ProtocolType.SYNCHRONOUS))


_BY_COORDINATE = ("Median", "TrimmedMean", "Bulyan")
"""Rules that look at each coordinate of updates on its own."""


def _codec(spec: Json) -> str:
    return str(spec.get("transport", {}).get("codec", "Float32"))


def _member(spec: Json, name: str) -> dict[str, Any]:
    member: dict[str, Any] = spec.get("protocol", {}).get(name) or {}
    return member


def _late_updates_need_no_base(spec: Json) -> bool:
    late = _member(spec, "synchronous").get("lateUpdates", LateUpdates.DROP)
    return late != LateUpdates.NEXT_ROUND or _codec(spec) == "Float32"


def _mixing_needs_no_base(spec: Json) -> bool:
    single = _protocol(spec) == ProtocolType.ASYNCHRONOUS and _member(spec, "asynchronous").get("bufferSize", 1) == 1
    return not single or _codec(spec) == "Float32"


def _no_order_without_rounds(spec: Json) -> bool:
    return _protocol(spec) != ProtocolType.ASYNCHRONOUS or not spec.get("aggregation", {}).get("deterministic", False)


def _mean_without_rounds(spec: Json) -> bool:
    rule = spec.get("aggregation", {}).get("rule", "FedAvg")
    return _protocol(spec) != ProtocolType.ASYNCHRONOUS or rule in _WITHOUT_ROUNDS


def _whole_models_to_remember(spec: Json) -> bool:
    remembers = spec.get("aggregation", {}).get("rule") == "FedRec"
    several = _member(spec, "asynchronous").get("bufferSize", 1) > 1
    return _protocol(spec) != ProtocolType.ASYNCHRONOUS or not (remembers and several)


def _all_without_rounds(spec: Json) -> bool:
    selection = spec.get("selection", {}).get("type", "All")
    return _protocol(spec) != ProtocolType.ASYNCHRONOUS or selection == "All"


def _first_round_is_one_epoch(spec: Json) -> bool:
    training = spec.get("training", {})
    return _protocol(spec) != ProtocolType.SEMI_SYNCHRONOUS or (
        "steps" not in training and training.get("epochs", 1) == 1
    )


def _scaffold(spec: Json) -> bool:
    return bool(spec.get("aggregation", {}).get("rule") == "Scaffold")


def _coordinates_are_sent(spec: Json) -> bool:
    return _codec(spec) != "TopK" or spec.get("aggregation", {}).get("rule") not in _BY_COORDINATE


def _variates_keep_their_weights(spec: Json) -> bool:
    return not _scaffold(spec) or spec["aggregation"].get("weighting") != "CompletedBatches"


def _variates_divide_by_the_rate(spec: Json) -> bool:
    return not _scaffold(spec) or float(spec.get("training", {}).get("learningRate", "0.05")) > 0


def _variates_belong_to_their_round(spec: Json) -> bool:
    return not _scaffold(spec) or _member(spec, "synchronous").get("lateUpdates") != LateUpdates.NEXT_ROUND


_ASYNCHRONOUS = f"self.protocol.type == '{ProtocolType.ASYNCHRONOUS}'"

RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec",),
        message="protocol.synchronous.lateUpdates NextRound needs transport.codec Float32: updates of other codecs are "
        "differences to a model that is gone by the next round",
        holds=_late_updates_need_no_base,
        cel="!has(self.protocol.synchronous) || !has(self.protocol.synchronous.lateUpdates) || "
        f"self.protocol.synchronous.lateUpdates != '{LateUpdates.NEXT_ROUND}' || self.transport.codec == 'Float32'",
    ),
    Rule(
        path=("spec",),
        message="protocol Asynchronous with bufferSize 1 needs transport.codec Float32: it mixes whole models, and "
        "other codecs send differences; a bufferSize of 2 or more takes them",
        holds=_mixing_needs_no_base,
        cel=f"!({_ASYNCHRONOUS}) || (has(self.protocol.asynchronous) && has(self.protocol.asynchronous.bufferSize) && "
        "self.protocol.asynchronous.bufferSize > 1) || self.transport.codec == 'Float32'",
    ),
    Rule(
        path=("spec",),
        message="aggregation.deterministic needs a protocol with rounds: what goes into a version of protocol "
        "Asynchronous depends on the order of arrival",
        holds=_no_order_without_rounds,
        cel=f"!({_ASYNCHRONOUS}) || !self.aggregation.deterministic",
    ),
    Rule(
        path=("spec",),
        message=f"protocol Asynchronous needs aggregation.rule {', '.join(_WITHOUT_ROUNDS)}: others compare the "
        "updates of a round in which everybody trained from the same version",
        holds=_mean_without_rounds,
        cel=f"!({_ASYNCHRONOUS}) || self.aggregation.rule in {list(_WITHOUT_ROUNDS)}",
    ),
    Rule(
        path=("spec",),
        message="aggregation.rule FedRec with protocol Asynchronous needs bufferSize 1: it remembers whole models, and "
        "for a larger buffer learners send differences to a version that may be gone",
        holds=_whole_models_to_remember,
        cel=f"!({_ASYNCHRONOUS}) || self.aggregation.rule != 'FedRec' || !has(self.protocol.asynchronous) || "
        "!has(self.protocol.asynchronous.bufferSize) || self.protocol.asynchronous.bufferSize == 1",
    ),
    Rule(
        path=("spec",),
        message="protocol Asynchronous needs selection.type All: every learner is given its next task at once",
        holds=_all_without_rounds,
        cel=f"!({_ASYNCHRONOUS}) || self.selection.type == 'All'",
    ),
    Rule(
        path=("spec",),
        message="transport.codec TopK does not go with aggregation.rule Median, TrimmedMean or Bulyan: what an update "
        "leaves out counts as 0, so that these hardly move a coordinate that fewer than half send; take another codec, "
        "such as Int8, or a rule that judges whole updates, such as MultiKrum or GeometricMedian",
        holds=_coordinates_are_sent,
        cel=f"self.transport.codec != 'TopK' || !(self.aggregation.rule in {list(_BY_COORDINATE)})",
    ),
    Rule(
        path=("spec",),
        message="aggregation.rule Scaffold needs weights that stay the same from round to round: aggregation.weighting "
        "TrainingExamples or Participants",
        holds=_variates_keep_their_weights,
        cel="self.aggregation.rule != 'Scaffold' || self.aggregation.weighting != 'CompletedBatches'",
    ),
    Rule(
        path=("spec",),
        message="aggregation.rule Scaffold divides by training.learningRate, which must be above 0",
        holds=_variates_divide_by_the_rate,
        cel="self.aggregation.rule != 'Scaffold' || self.training.learningRate.matches('[1-9]')",
    ),
    Rule(
        path=("spec",),
        message="aggregation.rule Scaffold needs protocol.synchronous.lateUpdates Drop: control variates belong to the "
        "round that they were made in",
        holds=_variates_belong_to_their_round,
        cel="self.aggregation.rule != 'Scaffold' || !has(self.protocol.synchronous) || "
        "!has(self.protocol.synchronous.lateUpdates) || "
        f"self.protocol.synchronous.lateUpdates != '{LateUpdates.NEXT_ROUND}'",
    ),
    Rule(
        path=("spec",),
        message="protocol SemiSynchronous decides itself how much each learner trains: leave out training.steps, and "
        "training.epochs unless it is 1",
        holds=_first_round_is_one_epoch,
        cel=f"self.protocol.type != '{ProtocolType.SEMI_SYNCHRONOUS}' || "
        "(!has(self.training.steps) && (!has(self.training.epochs) || self.training.epochs == 1))",
    ),
)

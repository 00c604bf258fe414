"""From `spec.aggregation` to the rule that it names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from metisfl.logs import logger
from metisfl.spec.aggregation import AggregationRule, AggregationSpec
from metisfl.spec.server_optimizer import ServerOptimizerSpec, ServerOptimizerType
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.control import control_layout
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.sections import Sections
from metisfl_controller.aggregation.clipping import NormClip
from metisfl_controller.aggregation.contributions import Contributions
from metisfl_controller.aggregation.kernels import norms, steps
from metisfl_controller.aggregation.kernels.runtime import Kernels
from metisfl_controller.aggregation.memory import MAX_SLOTS, sums_bytes
from metisfl_controller.aggregation.optimizers.adaptive import adagrad, adam, yogi
from metisfl_controller.aggregation.optimizers.momentum import momentum
from metisfl_controller.aggregation.optimizers.optimizer import ServerOptimizer, Step, moments_nbytes
from metisfl_controller.aggregation.robust_choice import (
    is_robust,
    robust_kept_bytes,
    robust_kernels_of,
    robust_rule_of,
)
from metisfl_controller.aggregation.rule import Rule
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.fednova import FedNova
from metisfl_controller.aggregation.rules.fedrec import FedRec
from metisfl_controller.aggregation.rules.fedstride import FedStride
from metisfl_controller.aggregation.rules.mean import MeanOptions
from metisfl_controller.aggregation.rules.scaffold import Scaffold


def maker_of_state(spec: AggregationSpec) -> str:
    """Names what the rule and its server optimiser keep: the same name, the same meaning. Empty where that is about
    single learners, of whom another federation knows nothing."""
    if spec.rule in (AggregationRule.FED_REC, AggregationRule.SCAFFOLD):
        return ""
    settings = spec.model_dump(mode="json", exclude_defaults=True, exclude={"deterministic", "keep_updates"})
    return json.dumps(settings, sort_keys=True)


def rule_of(spec: AggregationSpec, encoding: Encoding, allocate: Callable[[int], Buffer], directory: Path) -> Rule:
    """The rule for uploads of this encoding. `allocate` makes zeroed, 64-byte aligned buffers for models and whatever
    else the rule keeps of their size; it may raise OSError. `directory`: for files that outlive the process."""
    step = _step_of(spec.server_optimizer)
    options = MeanOptions(
        allocate=allocate,
        clip=NormClip(float(spec.clip_norm), encoding) if spec.clip_norm else None,
        optimizer=ServerOptimizer(step, encoding.layout, allocate) if step else None,
    )
    match spec.rule:
        case AggregationRule.FED_AVG:
            return FedAvg(encoding, options)
        case AggregationRule.FED_STRIDE:
            return FedStride(encoding, options, models=spec.fed_stride_or_default.models)
        case AggregationRule.FED_NOVA:
            return FedNova(encoding, options, local_momentum=float(spec.fed_nova_or_default.local_momentum))
        case AggregationRule.FED_REC:
            return FedRec(
                encoding,
                Contributions(directory / "contributions", encoding.layout.nbytes),
                options,
                # Sums that are always made in one order do not depend on what has been replaced, nor on restarts.
                recompute_every=0 if spec.deterministic else spec.fed_rec_or_default.recompute_every,
            )
        case AggregationRule.SCAFFOLD:
            return _scaffold(encoding, options)
        case _:
            return robust_rule_of(spec, encoding, allocate)


def _scaffold(encoding: Encoding, options: MeanOptions) -> Scaffold:
    control = Encoding(control_layout(encoding.layout), Codec.FLOAT32)
    return Scaffold(FedAvg(encoding, options), Sections.of(encoding, control), logger(__name__), options.allocate)


def kernels_of(spec: AggregationSpec) -> tuple[Kernels, ...]:
    """What must be compiled for this rule beside what every rule needs."""
    return (
        *robust_kernels_of(spec.rule),
        *((norms,) if spec.clip_norm else ()),
        *((steps,) if _step_of(spec.server_optimizer) else ()),
    )


def kept_bytes(spec: AggregationSpec, layout: Layout, learners: int) -> int:
    """Memory that the rule and lineage use beside models that are served or being made, with so many learners."""
    # One update at a time is written out as a whole model.
    written = layout.nbytes * ((spec.rule is AggregationRule.FED_REC) + bool(spec.keep_updates))
    if is_robust(spec.rule):
        return robust_kept_bytes(spec.rule, layout, learners) + written
    step = _step_of(spec.server_optimizer)
    moments = len(step.initial) * moments_nbytes(layout) if step else 0
    control = _control_bytes(layout) if spec.rule is AggregationRule.SCAFFOLD else 0
    return sums_bytes(layout) + moments + written + control


def _control_bytes(layout: Layout) -> int:
    """Memory for control variates: their sums, the one that is served, the next, and its chunk messages."""
    control = control_layout(layout)
    return sums_bytes(control) + 3 * control.nbytes


def max_slots(spec: AggregationSpec) -> int:
    """How many uploads may be in memory at once, however many would fit."""
    return spec.fed_stride_or_default.models if spec.rule is AggregationRule.FED_STRIDE else MAX_SLOTS


def _step_of(spec: ServerOptimizerSpec) -> Step | None:
    rate = spec.learning_rate_or_default
    match spec.type:
        case ServerOptimizerType.NONE:
            return None
        case ServerOptimizerType.MOMENTUM:
            return momentum(rate, spec.momentum_or_default)
        case ServerOptimizerType.ADAM:
            return adam(rate, spec.beta1_or_default, spec.beta2_or_default, spec.tau_or_default)
        case ServerOptimizerType.YOGI:
            return yogi(rate, spec.beta1_or_default, spec.beta2_or_default, spec.tau_or_default)
        case ServerOptimizerType.ADAGRAD:
            return adagrad(rate, spec.beta1_or_default, spec.tau_or_default)

"""From `spec.aggregation` to a rule that withstands attackers."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from metisfl.spec.aggregation import AggregationRule, AggregationSpec
from metisfl.spec.robust import (
    BulyanSpec,
    CenteredClipSpec,
    GeometricMedianSpec,
    KrumSpec,
    MultiKrumSpec,
    TrimmedMeanSpec,
)
from metisfl.wire.codecs import Encoding
from metisfl.wire.layout import Buffer, Layout
from metisfl_controller.aggregation.gathered import TILE
from metisfl_controller.aggregation.kernels import products, ranks
from metisfl_controller.aggregation.kernels.runtime import Kernels
from metisfl_controller.aggregation.rules.bulyan import Bulyan
from metisfl_controller.aggregation.rules.centered_clip import CenteredClip
from metisfl_controller.aggregation.rules.gathering import GatheringRule
from metisfl_controller.aggregation.rules.geometric_median import GeometricMedian
from metisfl_controller.aggregation.rules.krum import Krum, MultiKrum
from metisfl_controller.aggregation.rules.median import Median
from metisfl_controller.aggregation.rules.trimmed_mean import TrimmedMean

_RULES: dict[AggregationRule, type[GatheringRule]] = {
    AggregationRule.MEDIAN: Median,
    AggregationRule.TRIMMED_MEAN: TrimmedMean,
    AggregationRule.KRUM: Krum,
    AggregationRule.MULTI_KRUM: MultiKrum,
    AggregationRule.BULYAN: Bulyan,
    AggregationRule.GEOMETRIC_MEDIAN: GeometricMedian,
    AggregationRule.CENTERED_CLIP: CenteredClip,
}


def is_robust(rule: AggregationRule) -> bool:
    return rule in _RULES


def robust_rule_of(spec: AggregationSpec, encoding: Encoding, allocate: Callable[[int], Buffer]) -> GatheringRule:
    """As `choice.rule_of`. Raises ValueError for a rule that does not withstand attackers."""
    match spec.rule:
        case AggregationRule.MEDIAN:
            return Median(encoding, allocate=allocate)
        case AggregationRule.TRIMMED_MEAN:
            trimmed = spec.trimmed_mean or TrimmedMeanSpec()
            return TrimmedMean(encoding, fraction=Decimal(trimmed.fraction), allocate=allocate)
        case AggregationRule.KRUM:
            return Krum(encoding, byzantine=(spec.krum or KrumSpec()).byzantine, allocate=allocate)
        case AggregationRule.MULTI_KRUM:
            krum = spec.multi_krum or MultiKrumSpec()
            return MultiKrum(encoding, byzantine=krum.byzantine, select=krum.select, allocate=allocate)
        case AggregationRule.BULYAN:
            return Bulyan(encoding, byzantine=(spec.bulyan or BulyanSpec()).byzantine, allocate=allocate)
        case AggregationRule.GEOMETRIC_MEDIAN:
            median = spec.geometric_median or GeometricMedianSpec()
            smoothing = float(median.smoothing)
            return GeometricMedian(encoding, iterations=median.iterations, smoothing=smoothing, allocate=allocate)
        case AggregationRule.CENTERED_CLIP:
            clip = spec.centered_clip or CenteredClipSpec()
            radius = float(clip.radius) if clip.radius else None
            return CenteredClip(encoding, iterations=clip.iterations, radius=radius, allocate=allocate)
        case _:
            raise ValueError(f"{spec.rule} does not withstand attackers")


def robust_kernels_of(rule: AggregationRule) -> tuple[Kernels, ...]:
    """What must be compiled for it; nothing for other rules."""
    if rule not in _RULES:
        return ()
    return (ranks, products) if _RULES[rule].compares else (ranks,)


def robust_kept_bytes(rule: AggregationRule, layout: Layout, learners: int) -> int:
    """A tile of sums, and the inner products of so many learners' updates, while the round is finished."""
    tile = min(TILE, max(segment.elements for segment in layout.segments))
    return 8 * tile + (products.nbytes(learners, tile) if _RULES[rule].compares else 0)

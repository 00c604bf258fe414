"""From `spec.aggregation` to a rule, to what is compiled for it, and to what it needs of the memory budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metisfl.spec.aggregation import AggregationSpec
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout, aligned_zeros
from metisfl_controller.aggregation.choice import kept_bytes, kernels_of, maker_of_state, max_slots, rule_of
from metisfl_controller.aggregation.kernels import norms, steps
from metisfl_controller.aggregation.memory import MAX_SLOTS
from metisfl_controller.aggregation.rule import FUSED, Rule

LAYOUT = Layout.of({"w": np.zeros(6400, np.float32), "wide": np.zeros(640), "n": np.zeros(64, np.int64)})
SUMS = 8 * LAYOUT.parameters
SINGLES, DOUBLES = 4 * 6400, 8 * 640
"""Bytes of one moment's parts."""


def spec(**members: Any) -> AggregationSpec:
    return AggregationSpec.model_validate(members)


def rule(folder: Path, codec: Codec = Codec.FLOAT32, **members: Any) -> Rule:
    encoding = Encoding(LAYOUT, codec, updates=not codec.lossless)
    return rule_of(spec(**members), encoding, aligned_zeros, folder)


@pytest.mark.parametrize("name", ["FedAvg", "FedStride", "FedNova", "FedRec"])
def test_the_rule_that_is_named_is_made(tmp_path: Path, name: str) -> None:
    assert type(rule(tmp_path, rule=name)).__name__ == name


def test_only_who_needs_the_base_keeps_it(tmp_path: Path) -> None:
    assert not rule(tmp_path).needs_base
    assert not rule(tmp_path, rule="FedRec").needs_base
    assert rule(tmp_path, rule="FedNova").needs_base
    assert rule(tmp_path, clipNorm="1").needs_base
    assert rule(tmp_path, serverOptimizer={"type": "Adam"}).needs_base
    assert rule(tmp_path, Codec.INT8, rule="FedRec").needs_base


def test_strides_bound_passes_and_places(tmp_path: Path) -> None:
    assert rule(tmp_path).models_per_pass == FUSED
    assert max_slots(spec()) == MAX_SLOTS
    strides = {"rule": "FedStride", "fedStride": {"models": 3}}
    assert rule(tmp_path, **strides).models_per_pass == max_slots(spec(**strides)) == 3


def test_kernels_are_compiled_for_who_uses_them() -> None:
    assert kernels_of(spec()) == kernels_of(spec(rule="FedNova")) == kernels_of(spec(rule="FedRec")) == ()
    assert kernels_of(spec(clipNorm="1")) == (norms,)
    assert kernels_of(spec(serverOptimizer={"type": "Yogi"})) == (steps,)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, SUMS),
        ({"clipNorm": "1"}, SUMS),
        ({"serverOptimizer": {"type": "Momentum"}}, SUMS + SINGLES + DOUBLES),
        ({"serverOptimizer": {"type": "Adam"}}, SUMS + 2 * (SINGLES + DOUBLES)),
        ({"rule": "FedRec"}, SUMS + LAYOUT.nbytes),
        ({"keepUpdates": 3}, SUMS + LAYOUT.nbytes),
    ],
)
def test_what_a_rule_keeps_counts(members: dict[str, Any], expected: int) -> None:
    assert kept_bytes(spec(**members), LAYOUT, 3) == expected


@pytest.mark.parametrize("rule_name", ["Krum", "MultiKrum", "Bulyan", "GeometricMedian", "CenteredClip"])
def test_rules_that_compare_updates_need_memory_for_every_two(rule_name: str) -> None:
    few, many, median = (
        kept_bytes(spec(rule=name), LAYOUT, learners)
        for name, learners in ((rule_name, 8), (rule_name, 800), ("Median", 800))
    )
    assert many - few >= 8 * (800**2 - 8**2)
    assert many - median >= 8 * 800**2


def test_states_of_the_same_rule_and_optimiser_have_the_same_maker() -> None:
    adam = {"serverOptimizer": {"type": "Adam"}}
    made = maker_of_state(spec(**adam))
    assert made
    assert made == maker_of_state(spec(**adam, keepUpdates=3, deterministic=True))
    others = [{"serverOptimizer": {"type": "Yogi"}}, {**adam, "rule": "FedNova"}, {**adam, "clipNorm": "1"}]
    assert made not in [maker_of_state(spec(**other)) for other in others]


@pytest.mark.parametrize("rule", ["FedRec", "Scaffold"])
def test_what_is_about_single_learners_has_no_maker_that_others_know(rule: str) -> None:
    assert maker_of_state(spec(rule=rule)) == ""

"""SCAFFOLD's server against its formula in float64, with learners that are a few lines of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metisfl.logs import logger
from metisfl.spec.aggregation import AggregationRule, AggregationSpec
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.control import STAMP, Stamp, control_layout
from metisfl.wire.layout import Buffer, Layout, aligned_zeros
from metisfl.wire.sections import Sections
from metisfl_controller.aggregation.choice import kept_bytes
from metisfl_controller.aggregation.rule import Staged
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.scaffold import Scaffold

FAST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ARRAYS = {
    "w": np.zeros((3, 2), np.float32),
    "wide": np.zeros(4),
    "steps": np.array(0),
    "half": np.zeros(5, np.float16),
    "mean": np.zeros(2, np.float32),
}
LAYOUT = Layout.of(ARRAYS, frozen=("mean",))
CONTROL = control_layout(LAYOUT)
VARIATES = [tensor.name for tensor in CONTROL.tensors if tensor.name != STAMP]


def sections_of(codec: Codec = Codec.FLOAT32) -> Sections:
    model = Encoding(LAYOUT, codec, 1.0, updates=not codec.lossless)
    return Sections.of(model, Encoding(CONTROL, Codec.FLOAT32))


def scaffold(codec: Codec = Codec.FLOAT32) -> Scaffold:
    sections = sections_of(codec)
    return Scaffold(FedAvg(sections.model), sections, logger("test"))


def upload(
    change: dict[str, Any], learner: str, weight: float, stamp: Stamp, model: dict[str, Any] | None = None
) -> Staged:
    """A place with both sections."""
    sections = sections_of()
    place = aligned_zeros(sections.nbytes)
    (_, _, whole), (_, _, control) = sections.of_place(place)
    LAYOUT.pack(model or ARRAYS, whole)
    CONTROL.pack({**change, STAMP: np.zeros(3, np.int64)}, control)
    stamp.write(CONTROL, control)
    return Staged(place, weight, learner)


def random_change(rng: np.random.Generator) -> dict[str, Any]:
    views = CONTROL.views(CONTROL.allocate())
    return {name: rng.standard_normal(views[name].shape).astype(views[name].dtype) for name in VARIATES}


def variate(rule: Scaffold) -> dict[str, Any]:
    return {name: view for name, view in CONTROL.views(rule.control()).items() if name != STAMP}


def generation(rule: Scaffold) -> int:
    return Stamp.of(CONTROL, rule.control()).generation


class Site:
    """Who uploads, and the control variate that it should have by the sum of its changes."""

    def __init__(self, name: str, weight: float) -> None:
        self.name, self.weight, self.number = name, weight, 0
        self.own = {name: np.zeros(view.shape) for name, view in CONTROL.views(CONTROL.allocate()).items()}

    def uploads(self, rng: np.random.Generator, version: int, generation: int = 1) -> Staged:
        change = random_change(rng)
        stamp = Stamp(generation, self.number, version + 1)
        self.number = version + 1
        for name in VARIATES:
            self.own[name] = self.own[name] + change[name]
        return upload(change, self.name, self.weight, stamp)


@FAST
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5), st.booleans())
def test_the_global_variate_is_the_weighted_mean_of_those_seen(seed: int, sites: int, rounds: int, equal: bool) -> None:
    """Whoever takes part in which round: c = Σ p_k · c_k / Σ p_k over all who ever did."""
    rng = np.random.default_rng(seed)
    rule = scaffold()
    everybody = [Site(f"a-{n}", 1.0 if equal else float(rng.integers(1, 100))) for n in range(sites)]
    for version in range(rounds):
        part = [site for site in everybody if rng.random() < 0.6] or everybody[:1]
        staged = [site.uploads(rng, version) for site in part]
        cut = int(rng.integers(0, len(staged) + 1))
        rule.reset()
        rule.fold(staged[:cut])
        rule.finish(None, staged[cut:])
        seen = [site for site in everybody if site.number]
        for name, got in variate(rule).items():
            expected = np.average([s.own[name] for s in seen], axis=0, weights=[s.weight for s in seen])
            assert got == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert generation(rule) == 1


def test_with_equal_weights_and_all_seen_it_is_the_papers_formula() -> None:
    """c ← c + |S| / N · mean Δc_i."""
    rng = np.random.default_rng(1)
    rule = scaffold()
    sites = [Site(f"a-{n}", 1.0) for n in range(5)]
    rule.reset()
    rule.finish(None, [site.uploads(rng, 0) for site in sites])
    before = {name: np.array(view, np.float64) for name, view in variate(rule).items()}
    own = {site.name: dict(site.own) for site in sites[:2]}
    rule.reset()
    rule.finish(None, [site.uploads(rng, 1) for site in sites[:2]])
    for name, got in variate(rule).items():
        mean = np.mean([site.own[name] - own[site.name][name] for site in sites[:2]], axis=0)
        assert got == pytest.approx(before[name] + 2 / 5 * mean, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("codec", [Codec.FLOAT32, Codec.INT8])
def test_the_model_is_what_fedavg_makes_of_it(codec: Codec) -> None:
    rng = np.random.default_rng(4)
    sections, base = sections_of(codec), LAYOUT.pack(ARRAYS)
    rule, alone = scaffold(codec), FedAvg(sections.model)
    places = []
    for number in range(3):
        model = LAYOUT.pack({n: rng.standard_normal(a.shape).astype(a.dtype) for n, a in ARRAYS.items()})
        place = aligned_zeros(sections.nbytes)
        (_, encoding, first), (_, _, control) = sections.of_place(place)
        encoding.encode(model, first, base=base if encoding.updates else None)
        Stamp(1, 0, 1).write(CONTROL, control)
        places.append(Staged(place, float(number + 1), f"a-{number}"))
    for each in (rule, alone):
        each.reset()
        each.fold(places[:1], base)
    assert rule.finish(base, places[1:]).tobytes() == alone.finish(base, places[1:]).tobytes()


@pytest.mark.parametrize(
    ("stamp", "weight"),
    [
        (Stamp(1, 0, 2), 1.0),  # it lost its variate
        (Stamp(1, 5, 2), 1.0),  # it has one that the controller does not know of
        (Stamp(2, 1, 2), 1.0),  # of another generation
        (Stamp(1, 1, 2), 3.0),  # it weighs otherwise than before
    ],
    ids=["lost", "unknown", "generation", "weight"],
)
def test_a_change_that_does_not_lead_on_makes_all_begin_anew(
    stamp: Stamp, weight: float, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(2)
    rule = scaffold()
    sites = [Site("a-0", 1.0), Site("a-1", 1.0)]
    rule.reset()
    rule.finish(None, [site.uploads(rng, 0) for site in sites])
    rule.reset()
    rule.finish(None, [sites[0].uploads(rng, 1), upload(random_change(rng), "a-1", weight, stamp)])
    assert generation(rule) == 2
    assert not any(view.any() for view in variate(rule).values())
    assert "those of a-1 are not the ones that the global one is made of" in caplog.text
    # From there on it goes as from the start.
    fresh = [Site("a-0", 1.0), Site("a-1", weight)]
    rule.reset()
    rule.finish(None, [site.uploads(rng, 2, generation=2) for site in fresh])
    assert generation(rule) == 2
    for name, got in variate(rule).items():
        expected = np.average([site.own[name] for site in fresh], axis=0, weights=[1.0, weight])
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_an_abandoned_round_leaves_no_trace() -> None:
    rng = np.random.default_rng(3)
    rule = scaffold()
    lost, site = Site("a-0", 1.0), Site("a-0", 1.0)
    rule.reset()
    rule.fold([lost.uploads(rng, 0)])
    rule.reset()
    rule.finish(None, [site.uploads(rng, 0)])
    for name, got in variate(rule).items():
        assert got == pytest.approx(site.own[name], rel=1e-5)


def test_what_is_served_does_not_change_afterwards() -> None:
    rng = np.random.default_rng(3)
    rule, site = scaffold(), Site("a-0", 1.0)
    served: list[tuple[Buffer, bytes]] = []
    for version in range(3):
        served.append((rule.control(), rule.control().tobytes()))
        rule.reset()
        rule.finish(None, [site.uploads(rng, version)])
    assert all(buffer.tobytes() == before for buffer, before in served)


def test_a_controller_that_starts_again_goes_on_with_the_same_variate() -> None:
    rng = np.random.default_rng(6)
    rule, again = scaffold(), scaffold()
    sites = [Site("a-0", 2.0), Site("b-1", 3.0)]
    rule.reset()
    rule.finish(None, [site.uploads(rng, 0) for site in sites])
    again.restore({name: np.array(array) for name, array in rule.state().items()})
    assert again.control().tobytes() == rule.control().tobytes()
    staged = sites[1].uploads(rng, 1)
    for each in (rule, again):
        each.reset()
        each.finish(None, [staged])
        assert generation(each) == 1
    assert again.control().tobytes() == rule.control().tobytes()


@pytest.mark.parametrize("state", [{}, {"m": np.zeros(3, np.uint8)}, {"control": np.zeros(3, np.uint8)}])
def test_another_rules_state_is_refused(state: dict[str, Buffer]) -> None:
    with pytest.raises(ValueError, match="no control variate of this model"):
        scaffold().restore(state)


def test_the_memory_budget_knows_of_control_variates() -> None:
    """Sums of 8 bytes, and c, the next c and c's chunks of 4: of 10 trainable float32 elements and the stamp."""
    layout = Layout.of({"w": np.zeros(10, np.float32), "n": np.zeros(1000, np.int64)})
    alone, with_variates = (
        kept_bytes(AggregationSpec(rule=rule), layout, 3)
        for rule in (AggregationRule.FED_AVG, AggregationRule.SCAFFOLD)
    )
    control = control_layout(layout)
    assert control.nbytes == 64 + 3 * 8
    assert with_variates - alone == 8 * (10 + 3) + 3 * control.nbytes

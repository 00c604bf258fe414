"""Server optimisers against the formulas of their papers in float64 NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metisfl.wire.codecs import Codec
from metisfl_controller.aggregation import mapped
from metisfl_controller.aggregation.mapped import mapped_zeros
from metisfl_controller.aggregation.optimizers.adaptive import adagrad, adam, yogi
from metisfl_controller.aggregation.optimizers.momentum import momentum
from metisfl_controller.aggregation.optimizers.optimizer import ServerOptimizer, Step
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.fednova import FedNova
from metisfl_controller.aggregation.rules.mean import MeanOptions, WeightedMean
from tests.unit.controller.rules.samples import FLOATS, Arrays, Round, stepped

FAST = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("kernels")

STEPS = {
    "Momentum": momentum(0.7, 0.9),
    "rate alone": momentum(0.5, 0.0),
    "Adam": adam(0.1, 0.9, 0.99, 1e-3),
    "Yogi": yogi(0.1, 0.9, 0.9, 1e-2),
    "Adagrad": adagrad(0.05, 0.5, 1e-3),
}


class Paper:
    """One tensor's optimiser as its paper writes it. Moments are rounded as the docs say."""

    def __init__(self, name: str, step: Step, like: np.ndarray) -> None:
        self.name, self.step = name, step
        self.dtype = np.float64 if like.dtype == np.float64 else np.float32
        self.m = np.zeros(like.shape, self.dtype)
        self.v = np.full(like.shape, step.tau**2, self.dtype)

    def __call__(self, delta: np.ndarray) -> np.ndarray:
        eta, b1, b2, tau = self.step.rate, self.step.beta1, self.step.beta2, self.step.tau
        m, v = self.m.astype(np.float64), self.v.astype(np.float64)
        if self.name in ("Momentum", "rate alone"):
            m = b1 * m + delta
            self.m = m.astype(self.dtype)
            return eta * m
        m = b1 * m + (1 - b1) * delta
        match self.name:
            case "Adagrad":
                v = v + delta**2
            case "Adam":
                v = b2 * v + (1 - b2) * delta**2
            case "Yogi":
                v = v - (1 - b2) * delta**2 * np.sign(v - delta**2)
        self.m, self.v = m.astype(self.dtype), v.astype(self.dtype)
        return eta * m / (np.sqrt(v) + tau)


def mean_change(one: Round) -> Arrays:
    weights = np.array([u.weight * u.scale for u in one.uploads]) / sum(u.weight for u in one.uploads)
    changes = [one.change(upload) for upload in one.uploads]
    return {
        name: sum((w * change[name] for w, change in zip(weights, changes, strict=True)), np.zeros(()))
        for name in stepped(one.layout)
    }


@FAST
@given(
    name=st.sampled_from(sorted(STEPS)),
    codec=st.sampled_from(tuple(Codec)),
    dtype=st.sampled_from(FLOATS),
    size=st.sampled_from([0, 1, 65, 4097, 40_001]),
    scaled=st.booleans(),
    updates=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_three_rounds_are_the_papers_formula(
    name: str, codec: Codec, dtype: str, size: int, scaled: bool, updates: bool, seed: int
) -> None:
    rng, step = np.random.default_rng(seed), STEPS[name]
    one = Round(rng, codec, dtype, size, 3, scaled, updates)
    rule = FedAvg(one.encoding, MeanOptions(optimizer=ServerOptimizer(step, one.layout)))
    papers = {tensor: Paper(name, step, one.start[tensor]) for tensor in stepped(one.layout)}
    for _ in range(3):
        rule.reset()
        rule.fold(one.uploads[:1], one.whole)
        got = rule.finish(one.whole, one.uploads[1:])
        changes = {tensor: papers[tensor](delta) for tensor, delta in mean_change(one).items()}
        _check(one, got, changes)
        one = Round(rng, codec, dtype, size, 3, scaled, updates, base=dict(one.layout.views(got)))


def _check(one: Round, got: np.ndarray, changes: Arrays) -> None:
    views = one.layout.views(got)
    for tensor, change in changes.items():
        wanted = one.start[tensor].astype(np.float64) + change
        eps = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24, "float64": 2**-44}[views[tensor].dtype.name]
        # Sums differ in the order of their terms, and a moment may be rounded the other way for it.
        error = np.abs(views[tensor].astype(np.float64) - wanted)
        assert (error <= 1.01 * eps * np.abs(wanted) + 1e-6 * np.abs(change) + 2**-24).all(), tensor
    for tensor, wanted in one.averaged().items():
        np.testing.assert_allclose(views[tensor], wanted, rtol=1e-6)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("kind", [FedAvg, FedNova])
def test_a_restored_optimizer_goes_on_to_the_bit(name: str, kind: type[WeightedMean]) -> None:
    rng = np.random.default_rng(5)
    first = Round(rng, Codec.BFLOAT16, "float32", 5000, 4)

    def made() -> WeightedMean:
        return kind(first.encoding, MeanOptions(optimizer=ServerOptimizer(STEPS[name], first.layout)))

    through, before = made(), made()
    for rule in (through, before):
        rule.finish(first.whole, first.uploads)
    after = made()
    after.restore({moment: array.copy() for moment, array in before.state().items()})
    second = Round(rng, Codec.BFLOAT16, "float32", 5000, 4, base=first.start)
    for rule in (through, after):
        rule.reset()
    np.testing.assert_array_equal(
        after.finish(second.whole, second.uploads), through.finish(second.whole, second.uploads)
    )


def test_momentum_without_past_and_rate_1_is_the_mean_itself() -> None:
    one = Round(np.random.default_rng(3), Codec.FLOAT32, "float32", 1000, 4)
    rule = FedAvg(one.encoding, MeanOptions(optimizer=ServerOptimizer(momentum(1.0, 0.0), one.layout)))
    got, mean = (one.layout.views(r.finish(one.whole, one.uploads)) for r in (rule, FedAvg(one.encoding)))
    for name, array in mean.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-6, atol=1e-7)


def test_mapped_memory_gives_the_same_bits_tile_by_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_TILE", 1 << 12)
    one = Round(np.random.default_rng(4), Codec.FLOAT32, "float32", 50_001, 3)

    def rule(allocate) -> FedAvg:
        optimizer = ServerOptimizer(STEPS["Adam"], one.layout, allocate)
        return FedAvg(one.encoding, MeanOptions(allocate=allocate, optimizer=optimizer))

    in_memory = rule(lambda nbytes: np.zeros(nbytes, np.uint8))
    on_disk = rule(lambda nbytes: mapped_zeros(tmp_path, nbytes))
    for _ in range(2):
        in_memory.reset()
        on_disk.reset()
        expected = in_memory.finish(one.whole, one.uploads)
        np.testing.assert_array_equal(on_disk.finish(one.whole, one.uploads), expected)


def test_the_state_of_another_optimizer_or_layout_is_refused() -> None:
    one = Round(np.random.default_rng(6), Codec.FLOAT32, "float32", 100, 1)
    optimizer = ServerOptimizer(STEPS["Adam"], one.layout)
    with pytest.raises(ValueError, match="'momentum': 448"):
        optimizer.restore(ServerOptimizer(STEPS["Momentum"], one.layout).state())
    with pytest.raises(ValueError, match="keeps no state, and was given momentum"):
        FedAvg(one.encoding).restore(ServerOptimizer(STEPS["Momentum"], one.layout).state())


def test_a_step_beyond_the_range_of_the_dtype_is_an_error() -> None:
    one = Round(np.random.default_rng(7), Codec.FLOAT32, "float16", 100, 2)
    rule = FedAvg(one.encoding, MeanOptions(optimizer=ServerOptimizer(momentum(1e6, 0.0), one.layout)))
    with pytest.raises(ValueError, match="beyond the range of their dtype float16"):
        rule.finish(one.whole, one.uploads)

"""What attackers within a rule's bound can do to it, and what they can do to the mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np
import pytest

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout
from metisfl_controller.aggregation.rule import Rule, Staged
from metisfl_controller.aggregation.rules.bulyan import Bulyan
from metisfl_controller.aggregation.rules.centered_clip import CenteredClip
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.geometric_median import GeometricMedian
from metisfl_controller.aggregation.rules.krum import Krum, MultiKrum
from metisfl_controller.aggregation.rules.median import Median
from metisfl_controller.aggregation.rules.trimmed_mean import TrimmedMean

pytestmark = pytest.mark.usefixtures("kernels")

SIZE = 200
LAYOUT = Layout.of({"w": np.zeros(SIZE, np.float32), "running": np.zeros(3, np.float32)}, frozen=["running"])
BASE = {"w": np.random.default_rng(0).standard_normal(SIZE), "running": np.ones(3)}

Attack = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""From honest updates (honest, SIZE) to one attacker's."""

ATTACKS: dict[str, Attack] = {
    "sign flip": lambda rng, honest: -10 * honest.mean(axis=0),
    "noise": lambda rng, honest: 100 * rng.standard_normal(SIZE),
    "huge": lambda rng, honest: np.full(SIZE, 1e37),
    "huge and negative": lambda rng, honest: np.full(SIZE, -1e37),
    "one coordinate": lambda rng, honest: np.where(np.arange(SIZE) == 7, 1e4, honest.mean(axis=0)),
    "nothing": lambda rng, honest: np.zeros(SIZE),
}
RULES: dict[str, tuple[Callable[[Encoding, int], Rule], Callable[[int], int]]] = {
    # The rule for so many attackers, and the learners that it takes.
    "Median": (lambda encoding, f: Median(encoding), lambda f: 2 * f + 1),
    "TrimmedMean": (lambda encoding, f: TrimmedMean(encoding, fraction=Decimal(f) / (2 * f + 1)), lambda f: 2 * f + 1),
    "Krum": (lambda encoding, f: Krum(encoding, byzantine=f), lambda f: 2 * f + 3),
    "MultiKrum": (lambda encoding, f: MultiKrum(encoding, byzantine=f), lambda f: 2 * f + 3),
    "Bulyan": (lambda encoding, f: Bulyan(encoding, byzantine=f), lambda f: 4 * f + 3),
    "GeometricMedian": (
        lambda encoding, f: GeometricMedian(encoding, iterations=300, smoothing=1e-6),
        lambda f: 2 * f + 1,
    ),
    "CenteredClip": (lambda encoding, f: CenteredClip(encoding, iterations=50), lambda f: 2 * f + 1),
}
BY_COORDINATE = ("Median", "TrimmedMean", "Bulyan")


def upload(encoding: Encoding, update: np.ndarray, running: float) -> Staged:
    model = {"w": (BASE["w"] + update).astype(np.float32), "running": np.full(3, running, np.float32)}
    base = LAYOUT.pack({"w": BASE["w"].astype(np.float32), "running": np.ones(3, np.float32)})
    return Staged(encoding.encode(LAYOUT.pack(model), base=base if encoding.updates else None), 1.0)


def honest_updates(rng: np.random.Generator, count: int) -> np.ndarray:
    """About 1 in each coordinate."""
    return 1 + 0.2 * rng.standard_normal((count, SIZE))


def result(rule: Rule, uploads: Sequence[Staged]) -> tuple[np.ndarray, np.ndarray]:
    """The update that a rule arrives at, and its running mean."""
    base = LAYOUT.pack({"w": BASE["w"].astype(np.float32), "running": np.ones(3, np.float32)})
    rule.reset()
    model = LAYOUT.views(rule.finish(base, uploads))
    return model["w"].astype(np.float64) - BASE["w"], model["running"]


@pytest.mark.parametrize("updates", [False, True], ids=["models", "updates"])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("attackers", [1, 4])
def test_as_many_attackers_as_a_rule_withstands_do_not_get_through(
    name: str, attack: str, attackers: int, updates: bool
) -> None:
    rng = np.random.default_rng(attackers)
    make, learners = RULES[name]
    encoding = Encoding(LAYOUT, Codec.FLOAT32, updates=updates)
    honest = honest_updates(rng, learners(attackers) - attackers)
    bad = [upload(encoding, ATTACKS[attack](rng, honest), 1e30) for _ in range(attackers)]
    # Attackers first, where ties would favour them.
    moved, running = result(make(encoding, attackers), bad + [upload(encoding, each, 2.0) for each in honest])
    if name in BY_COORDINATE:
        assert (moved >= honest.min(axis=0) - 1e-5).all()
        assert (moved <= honest.max(axis=0) + 1e-5).all()
    farthest = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    # 2 · (1 - α) / (1 - 2α) with α < 1/2 of attackers is the geometric median's constant; the others are closer.
    alpha = attackers / learners(attackers)
    assert np.linalg.norm(moved - honest.mean(axis=0)) <= 2 * (1 - alpha) / (1 - 2 * alpha) * farthest + 1e-4
    assert (running == 2.0).all()


@pytest.mark.parametrize("attack", ["sign flip", "noise", "huge", "one coordinate"])
def test_one_attacker_of_eleven_is_enough_for_the_mean(attack: str) -> None:
    rng = np.random.default_rng(1)
    encoding = Encoding(LAYOUT, Codec.FLOAT32)
    honest = honest_updates(rng, 10)
    uploads = [upload(encoding, ATTACKS[attack](rng, honest), 1.0), *(upload(encoding, u, 1.0) for u in honest)]
    moved, _ = result(FedAvg(encoding), uploads)
    assert ((moved < honest.min(axis=0) - 0.1) | (moved > honest.max(axis=0) + 0.1)).any()


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("TrimmedMean", "Krum", "MultiKrum")])
def test_a_majority_of_attackers_gets_through(name: str) -> None:
    """So what is tested above is the rules' bound and not their tests' weakness."""
    rng = np.random.default_rng(2)
    encoding = Encoding(LAYOUT, Codec.FLOAT32)
    make, _ = RULES[name]
    bad = np.full(SIZE, -50.0) + 0.1 * rng.standard_normal((9, SIZE))
    uploads = [upload(encoding, each, 1.0) for each in (*bad, *honest_updates(rng, 2))]
    moved, _ = result(make(encoding, 2), uploads)
    assert moved.mean() < -10


def test_a_huge_attacker_does_not_hide_another_in_rounding() -> None:
    """Distances are taken from the base: from an upload far away, all others would look alike."""
    rng = np.random.default_rng(3)
    encoding = Encoding(LAYOUT, Codec.FLOAT32)
    honest = honest_updates(rng, 7)
    uploads = [upload(encoding, np.full(SIZE, 1e37), 1.0), upload(encoding, np.full(SIZE, -3.0), 1.0)]
    moved, _ = result(Krum(encoding, byzantine=2), uploads + [upload(encoding, each, 1.0) for each in honest])
    assert any(np.allclose(moved, each, atol=1e-5) for each in honest)

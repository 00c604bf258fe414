"""Every robust rule against its paper's formula in plain float64 NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout
from metisfl_controller.aggregation import gathered
from metisfl_controller.aggregation.mapped import mapped_zeros
from metisfl_controller.aggregation.rule import Staged
from metisfl_controller.aggregation.rules.bulyan import Bulyan
from metisfl_controller.aggregation.rules.centered_clip import CenteredClip
from metisfl_controller.aggregation.rules.gathering import GatheringRule
from metisfl_controller.aggregation.rules.geometric_median import GeometricMedian
from metisfl_controller.aggregation.rules.krum import Krum, MultiKrum
from metisfl_controller.aggregation.rules.median import Median
from metisfl_controller.aggregation.rules.trimmed_mean import TrimmedMean, trimmed_on_each_side
from tests.unit.controller.rules import oracles
from tests.unit.controller.rules.samples import FLOATS, FROZEN, Arrays, Round, stepped

FAST = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("kernels")

RULES: dict[str, Callable[[Encoding], GatheringRule]] = {
    "Median": Median,
    "TrimmedMean": lambda encoding: TrimmedMean(encoding, fraction=Decimal("0.2")),
    "Krum": lambda encoding: Krum(encoding, byzantine=2),
    "MultiKrum": lambda encoding: MultiKrum(encoding, byzantine=2),
    "Bulyan": lambda encoding: Bulyan(encoding, byzantine=2),
    "GeometricMedian": lambda encoding: GeometricMedian(encoding, iterations=32, smoothing=1e-6),
    "CenteredClip": lambda encoding: CenteredClip(encoding, iterations=10),
}


@st.composite
def rounds(draw: st.DrawFn, least: int = 1, sizes: Sequence[int] = (0, 1, 65, 1000, 40_001)) -> Round:
    return Round(
        rng=np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        codec=draw(st.sampled_from(tuple(Codec))),
        dtype=draw(st.sampled_from(FLOATS)),
        size=draw(st.sampled_from(sizes)),
        count=draw(st.integers(least, 60)),
        updates=draw(st.booleans()),
    )


def run(rule: GatheringRule, one: Round, uploads: Sequence[Staged] | None = None) -> Buffer:
    rule.reset()
    base = one.whole if one.updates or rule.needs_base else None
    return rule.finish(base, one.uploads if uploads is None else uploads)


def vectors(one: Round) -> np.ndarray:
    """Updates of all stepped tensors side by side, (K, d)."""
    changes = [one.change(upload) for upload in one.uploads]
    return np.stack([np.concatenate([change[name].ravel() for name in stepped(one.layout)]) for change in changes])


def as_changes(one: Round, vector: np.ndarray) -> Arrays:
    changes, at = {}, 0
    for name in stepped(one.layout):
        shape = one.start[name].shape
        size = int(np.prod(shape))
        changes[name] = vector[at : at + size].reshape(shape)
        at += size
    return changes


def of_carried(one: Round, rule: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    """A coordinate-wise rule of the tensors that updates do not speak of."""
    values = {name: np.stack([model[name].astype(np.float64) for model in one.models]) for name in (FROZEN, "n")}
    return {FROZEN: rule(values[FROZEN]), "n": np.rint(rule(values["n"]))}


def medians(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.median(values, axis=0))


@FAST
@given(rounds())
def test_median(one: Round) -> None:
    got = run(Median(one.encoding), one)
    one.check(got, as_changes(one, medians(vectors(one))), of_carried(one, medians))


@FAST
@given(rounds(), st.sampled_from(["0", "0.1", "0.25", "0.49"]))
def test_trimmed_mean(one: Round, fraction: str) -> None:
    trimmed = trimmed_on_each_side(Decimal(fraction), one.count)
    got = run(TrimmedMean(one.encoding, fraction=Decimal(fraction)), one)

    def expected(values: np.ndarray) -> np.ndarray:
        return oracles.trimmed_mean(values, trimmed)

    one.check(got, as_changes(one, expected(vectors(one))), of_carried(one, expected))


@pytest.mark.parametrize(
    ("fraction", "count", "trimmed"),
    [("0", 10, 0), ("0.2", 10, 2), ("0.2", 9, 2), ("0.1", 1, 0), ("0.1", 2, 0), ("0.1", 3, 1), ("0.49", 10, 4)],
)
def test_as_many_are_trimmed_as_the_fraction_may_hold_but_never_all(fraction: str, count: int, trimmed: int) -> None:
    assert trimmed_on_each_side(Decimal(fraction), count) == trimmed


@FAST
@given(rounds(least=3, sizes=(65, 1000, 40_001)), st.data())
def test_krum_and_multi_krum(one: Round, data: st.DataObject) -> None:
    byzantine = data.draw(st.integers(0, (one.count - 3) // 2))
    select = data.draw(st.integers(1, one.count) | st.none())
    updates = vectors(one)
    best = oracles.krum_order(updates, byzantine)
    carried = of_carried(one, medians)
    got = run(Krum(one.encoding, byzantine=byzantine), one)
    one.check(got, as_changes(one, updates[best[0]]), carried)
    count = min(select or one.count, one.count - byzantine)
    got = run(MultiKrum(one.encoding, byzantine=byzantine, select=select), one)
    one.check(got, as_changes(one, updates[best[:count]].mean(axis=0)), carried)


@FAST
@given(rounds(least=3, sizes=(65, 1000)), st.data())
def test_bulyan(one: Round, data: st.DataObject) -> None:
    byzantine = data.draw(st.integers(0, (one.count - 3) // 4))
    got = run(Bulyan(one.encoding, byzantine=byzantine), one)
    expected = oracles.bulyan(vectors(one), byzantine)
    one.check(got, as_changes(one, expected), of_carried(one, medians))


@FAST
@given(rounds(), st.integers(0, 40))
def test_geometric_median(one: Round, iterations: int) -> None:
    got = run(GeometricMedian(one.encoding, iterations=iterations, smoothing=1e-6), one)
    weights = np.array([upload.weight for upload in one.uploads])
    expected = oracles.geometric_median(vectors(one), weights, iterations, 1e-6)
    if iterations:
        one.check(got, as_changes(one, expected), of_carried(one, medians), slack=1e-9)


@FAST
@given(rounds(), st.integers(1, 12), st.sampled_from([None, 0.5, 1e9]))
def test_centered_clip(one: Round, iterations: int, radius: float | None) -> None:
    got = run(CenteredClip(one.encoding, iterations=iterations, radius=radius), one)
    expected = oracles.centered_clip(vectors(one), radius, iterations)
    one.check(got, as_changes(one, expected), of_carried(one, medians), slack=1e-9)


def test_the_geometric_median_is_one() -> None:
    """Its subgradient is zero: the weighted unit vectors to all updates cancel."""
    one = Round(np.random.default_rng(1), Codec.FLOAT32, "float64", 40, 9)
    uploads = [Staged(upload.content, 1.0) for upload in one.uploads]
    model = run(GeometricMedian(one.encoding, iterations=500, smoothing=1e-9), one, uploads)
    found = one.layout.views(model)
    centre = np.concatenate([found[name].ravel() - one.start[name].ravel() for name in stepped(one.layout)])
    away = vectors(one) - centre
    assert np.linalg.norm((away / np.linalg.norm(away, axis=1)[:, None]).sum(axis=0)) < 1e-6


# ---- what is true of all of them

every_rule = pytest.mark.parametrize("name", RULES)


@every_rule
@settings(FAST, max_examples=8)
@given(rounds(least=11, sizes=(65, 1000)), st.randoms(use_true_random=False))
def test_the_order_of_uploads_does_not_matter(name: str, one: Round, random: object) -> None:
    shuffled = list(one.uploads)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    rule = RULES[name](one.encoding)
    first, second = one.layout.views(run(rule, one)), one.layout.views(run(rule, one, shuffled))
    for tensor in first:
        eps = 1e-12 if first[tensor].dtype.kind in "iub" else 2 * float(np.spacing(np.ones((), first[tensor].dtype)))
        np.testing.assert_allclose(
            first[tensor].astype(np.float64), second[tensor].astype(np.float64), rtol=max(eps, 1e-11), atol=eps
        )


@every_rule
def test_equal_uploads_come_back(name: str) -> None:
    one = Round(np.random.default_rng(2), Codec.FLOAT32, "float32", 100, 11)
    model = one.layout.pack(one.models[0])
    got = run(RULES[name](one.encoding), one, [Staged(model, 1.0)] * 11)
    for tensor, found in one.layout.views(got).items():
        np.testing.assert_allclose(found, one.models[0][tensor], rtol=1e-6, atol=1e-6)


@every_rule
def test_uploads_of_weight_0_have_no_voice(name: str) -> None:
    one = Round(np.random.default_rng(3), Codec.INT8, "float32", 1000, 14)
    rule = RULES[name](one.encoding)
    voices, silent = one.uploads[:12], [Staged(upload.content, 0.0) for upload in one.uploads[12:]]
    np.testing.assert_array_equal(run(rule, one, [silent[0], *voices, silent[1]]), run(rule, one, voices))


@pytest.mark.parametrize("name", [name for name in RULES if name != "GeometricMedian"])
def test_a_claimed_weight_buys_nothing(name: str) -> None:
    one = Round(np.random.default_rng(4), Codec.FLOAT32, "float32", 1000, 12)
    rule = RULES[name](one.encoding)
    claimed = [Staged(upload.content, 1e9 if k == 5 else 1.0) for k, upload in enumerate(one.uploads)]
    np.testing.assert_array_equal(run(rule, one, claimed), run(rule, one))


@every_rule
def test_too_few_uploads_are_an_error(name: str) -> None:
    one = Round(np.random.default_rng(5), Codec.FLOAT32, "float32", 10, 12)
    rule = RULES[name](one.encoding)
    few = one.uploads[: rule.minimum - 1]
    with pytest.raises(ValueError, match=f"{name} needs {rule.minimum} updates of positive weight"):
        run(rule, one, few)
    run(rule, one, one.uploads[: rule.minimum])


def test_scaled_updates_are_refused_and_not_taken_for_whole_ones() -> None:
    one = Round(np.random.default_rng(5), Codec.FLOAT32, "float32", 10, 5, scaled=True)
    with pytest.raises(ValueError, match="Median compares whole updates"):
        run(Median(one.encoding), one)


@every_rule
def test_buffers_that_are_too_short_are_refused(name: str) -> None:
    one = Round(np.random.default_rng(6), Codec.INT8, "float32", 50, 12)
    rule = RULES[name](one.encoding)
    short = Staged(one.uploads[0].content[:-1], 1.0)
    with pytest.raises(ValueError, match="an upload of"):
        run(rule, one, [*one.uploads[1:], short])
    with pytest.raises(ValueError, match="a base of"):
        rule.finish(one.whole[:-1], one.uploads)


@every_rule
@pytest.mark.parametrize("codec", [Codec.FLOAT32, Codec.TOPK])
def test_mapped_memory_gives_the_same_bits_tile_by_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Codec, name: str
) -> None:
    one = Round(np.random.default_rng(7), codec, "float32", 100_001, 11)
    in_memory = run(RULES[name](one.encoding), one)
    monkeypatch.setattr(gathered, "TILE_BYTES", 1)

    def mapped(content: Buffer) -> Buffer:
        copy = mapped_zeros(tmp_path, content.size)
        copy[:] = content
        return copy

    rule = RULES[name](one.encoding)
    rule._allocate = lambda nbytes: mapped_zeros(tmp_path, nbytes)
    uploads = [Staged(mapped(upload.content), upload.weight) for upload in one.uploads]
    np.testing.assert_array_equal(rule.finish(mapped(one.whole), uploads), in_memory)


@pytest.mark.parametrize("name", ["Krum", "MultiKrum", "Bulyan", "GeometricMedian", "CenteredClip"])
def test_an_update_beyond_the_range_of_float64_norms_is_infinitely_far(name: str) -> None:
    one = Round(np.random.default_rng(8), Codec.FLOAT32, "float64", 30, 12)
    one.models[4]["w"][:] = 1e300
    expected = vectors(one)[[k for k in range(12) if k != 4]]
    found = one.layout.views(run(RULES[name](one.encoding), one))["w"] - one.start["w"]
    assert np.abs(found).max() <= np.abs(expected).max()


def test_a_result_beyond_the_range_of_the_dtype_is_an_error() -> None:
    layout = Layout.of({"t": np.zeros(5, np.float32)})
    encoding = Encoding(layout, Codec.BFLOAT16, updates=True)
    base = layout.pack({"t": np.full(5, np.finfo(np.float32).max)})
    uploads = [Staged(encoding.encode(layout.pack({"t": np.full(5, 1e38, np.float32)})), 1.0)] * 3
    with pytest.raises(ValueError, match="5 values of the new model are beyond"):
        Median(encoding).finish(base, uploads)

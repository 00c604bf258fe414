"""FedNova, FedStride, clipping and scales against plain float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout
from metisfl_controller.aggregation.clipping import NormClip
from metisfl_controller.aggregation.rule import Staged
from metisfl_controller.aggregation.rules.fedavg import FedAvg
from metisfl_controller.aggregation.rules.fednova import FedNova
from metisfl_controller.aggregation.rules.fedstride import FedStride
from metisfl_controller.aggregation.rules.mean import MeanOptions, WeightedMean
from tests.unit.controller.rules.samples import FLOATS, Arrays, Round, stepped

FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = pytest.mark.usefixtures("kernels")

codecs = st.sampled_from(tuple(Codec))
sizes = st.sampled_from([0, 1, 65, 1000, 16_385, 40_001])


@st.composite
def rounds(draw: st.DrawFn, most: int = 20) -> Round:
    return Round(
        rng=np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        codec=draw(codecs),
        dtype=draw(st.sampled_from(FLOATS)),
        size=draw(sizes),
        count=draw(st.integers(1, most)),
        updates=draw(st.booleans()),
        scaled=draw(st.booleans()),
    )


def run(rule: WeightedMean, one: Round, cut: int, uploads: list[Staged] | None = None) -> np.ndarray:
    uploads = one.uploads if uploads is None else uploads
    rule.reset()
    rule.fold(uploads[:cut], one.whole)
    return rule.finish(one.whole, uploads[cut:])


def mean_change(one: Round, coefficients: list[float]) -> Arrays:
    changes = [one.change(upload) for upload in one.uploads]
    return {
        name: sum((c * change[name] for c, change in zip(coefficients, changes, strict=True)), np.zeros(()))
        for name in stepped(one.layout)
    }


@FAST
@given(rounds(most=60), st.floats(0, 1))
def test_fedavg_with_scales(one: Round, cut: float) -> None:
    got = run(FedAvg(one.encoding), one, round(cut * one.count))
    total = sum(upload.weight for upload in one.uploads)
    one.check(got, mean_change(one, [upload.weight * upload.scale / total for upload in one.uploads]))


@FAST
@given(rounds(), st.floats(0, 1), st.sampled_from([0.0, 0.5, 0.9]))
def test_fednova_is_the_formula_of_the_paper(one: Round, cut: float, rho: float) -> None:
    rule = FedNova(one.encoding, local_momentum=rho)
    got = run(rule, one, round(cut * one.count))
    total = sum(upload.weight for upload in one.uploads)
    # The coefficient of each step's gradient in what SGD with momentum has moved at the end, one by one.
    lengths = [sum((1 - rho**left) / (1 - rho) for left in range(1, u.steps + 1)) for u in one.uploads]
    effective = sum(u.weight / total * a for u, a in zip(one.uploads, lengths, strict=True))
    shares = [effective * u.weight / total * u.scale / a for u, a in zip(one.uploads, lengths, strict=True)]
    one.check(got, mean_change(one, shares))


def test_fednova_with_equal_steps_is_fedavg() -> None:
    one = Round(np.random.default_rng(1), Codec.FLOAT32, "float64", 1000, 5)
    uploads = [Staged(u.content, u.weight, u.learner, 7) for u in one.uploads]
    nova, avg = (run(rule(one.encoding), one, 3, uploads) for rule in (FedNova, FedAvg))
    for name, array in one.layout.views(nova).items():
        np.testing.assert_allclose(array, one.layout.views(avg)[name], rtol=1e-12, atol=1e-14)


def test_fednova_needs_steps() -> None:
    encoding = Encoding(Layout.of({"t": np.zeros(5, np.float32)}), Codec.FLOAT32)
    rule = FedNova(encoding)
    with pytest.raises(ValueError, match="divides updates by their local steps, and one reports 0"):
        rule.fold([Staged(encoding.layout.allocate(), 1.0, steps=0)], encoding.layout.allocate())


@FAST
@given(rounds(), st.floats(0, 1), st.sampled_from([1e-3, 0.5, 1.0, 2.0]))
def test_clipped_updates_are_no_longer_than_the_bound(one: Round, cut: float, share: float) -> None:
    norms = [one.norm(upload) for upload in one.uploads]
    bound = max(1e-3, share * float(np.median(norms)))
    rule = FedAvg(one.encoding, MeanOptions(clip=NormClip(bound, one.encoding)))
    got = run(rule, one, round(cut * one.count))
    total = sum(upload.weight for upload in one.uploads)
    scales = [u.scale * min(1.0, bound / norm if norm else 1.0) for u, norm in zip(one.uploads, norms, strict=True)]
    one.check(got, mean_change(one, [u.weight * s / total for u, s in zip(one.uploads, scales, strict=True)]))


@FAST
@given(rounds(most=3))
def test_the_norm_is_that_of_the_update(one: Round) -> None:
    clip = NormClip(1e-6, one.encoding)
    for upload in one.uploads:
        scale = clip.scale(upload.content, None if one.updates else one.whole)
        assert scale == pytest.approx(1e-6 / one.norm(upload), rel=1e-9)


def test_the_norm_does_not_depend_on_the_number_of_threads() -> None:
    import numba

    one = Round(np.random.default_rng(2), Codec.FLOAT32, "float32", 400_001, 1)
    clip, found = NormClip(1e-6, one.encoding), set()
    before = numba.get_num_threads()
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            found.add(clip.scale(one.uploads[0].content, one.whole))
    finally:
        numba.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize("models", [1, 2, 3, 7])
def test_metisfl_defect_fedstride_corrupts_a_tensors_first_element(models: int) -> None:
    """MetisFL's FedStride did. Here strides of any length give FedAvg's model, to the bit, every element."""
    one = Round(np.random.default_rng(models), Codec.FLOAT32, "float32", 1001, 7)
    rule = FedStride(one.encoding, models=models)
    assert rule.models_per_pass == models
    rule.reset()
    for start in range(0, 7, models):
        rule.fold(one.uploads[start : start + models])
    got = rule.finish()
    np.testing.assert_array_equal(got, FedAvg(one.encoding).finish(None, one.uploads))
    one.check(got, mean_change(one, [u.weight / rule.total_weight for u in one.uploads]))


@FAST
@given(rounds(most=12), st.sampled_from([FedAvg, FedNova]), st.randoms(use_true_random=False))
def test_the_order_of_uploads_matters_by_rounding_only(one: Round, kind: type[WeightedMean], random) -> None:
    shuffled = one.uploads.copy()
    random.shuffle(shuffled)
    rules = [kind(one.encoding) for _ in range(2)]
    one_way, other_way = (
        one.layout.views(run(rule, one, 2, uploads))
        for rule, uploads in zip(rules, (one.uploads, shuffled), strict=True)
    )
    for name in stepped(one.layout):
        eps = 2.0 ** -{"float16": 10, "bfloat16": 7, "float32": 23, "float64": 40}[one_way[name].dtype.name]
        np.testing.assert_allclose(
            one_way[name].astype(np.float64), other_way[name].astype(np.float64), rtol=eps, atol=eps
        )

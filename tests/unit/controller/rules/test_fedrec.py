"""FedRec: the mean of every learner's last model, against NumPy over the models themselves."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout, aligned_zeros
from metisfl_controller.aggregation import mapped
from metisfl_controller.aggregation.clipping import NormClip
from metisfl_controller.aggregation.contributions import Contributions
from metisfl_controller.aggregation.mapped import mapped_zeros
from metisfl_controller.aggregation.optimizers.momentum import momentum
from metisfl_controller.aggregation.optimizers.optimizer import ServerOptimizer
from metisfl_controller.aggregation.rule import Staged
from metisfl_controller.aggregation.rules.fedrec import FedRec
from metisfl_controller.aggregation.rules.mean import PLAIN, MeanOptions
from metisfl_controller.aggregation.sums import largest_of
from tests.unit.controller.rules.samples import FLOATS, Round, stepped

FAST = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LAYOUT = Layout.of({"w": np.zeros(1000, np.float32), "wide": np.zeros(33), "n": np.zeros(5, np.int64)})
ENCODING = Encoding(LAYOUT, Codec.FLOAT32)

pytestmark = pytest.mark.usefixtures("kernels")


def fed_rec(folder: Path, encoding: Encoding = ENCODING, options: MeanOptions = PLAIN, every: int = 1000) -> FedRec:
    return FedRec(encoding, Contributions(folder, encoding.layout.nbytes), options, recompute_every=every)


class Federation:
    """Learners whose last models and weights the test remembers."""

    def __init__(self, rule: FedRec, seed: int = 0) -> None:
        self.rule = rule
        self.rng = np.random.default_rng(seed)
        self.last: dict[str, tuple[dict[str, np.ndarray], float]] = {}

    def upload(self, learner: str, magnitude: float = 1.0) -> Staged:
        arrays = {
            "w": (self.rng.standard_normal(1000) * magnitude).astype(np.float32),
            "wide": self.rng.standard_normal(33) * magnitude,
            "n": self.rng.integers(-99, 99, 5),
        }
        self.last[learner] = arrays, float(self.rng.integers(1, 100))
        return Staged(LAYOUT.pack(arrays), self.last[learner][1], learner)

    def round(self, *learners: str, magnitude: float = 1.0) -> dict[str, np.ndarray]:
        self.rule.reset()
        *first, last = (self.upload(learner, magnitude) for learner in learners)
        self.rule.fold(first)
        return LAYOUT.views(self.rule.finish(None, [last]))

    def check(self, got: dict[str, np.ndarray], tolerance: float = 1e-13) -> None:
        weights = [weight for _, weight in self.last.values()]
        for name, array in got.items():
            mean = np.average([arrays[name].astype(np.float64) for arrays, _ in self.last.values()], 0, weights)
            expected = np.rint(mean) if name == "n" else mean.astype(array.dtype)
            atol = 0 if name == "n" else max(tolerance, float(np.finfo(array.dtype).eps))
            np.testing.assert_allclose(array, expected, rtol=0, atol=atol)


def test_absent_learners_count_with_their_last_models(tmp_path: Path) -> None:
    federation = Federation(fed_rec(tmp_path))
    for participants in (("a", "b", "c"), ("b",), ("d", "a"), ("d",), ("b", "c", "d", "e")):
        federation.check(federation.round(*participants))


@FAST
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6), min_size=1, max_size=12),
    st.sampled_from([0, 1, 3, 1000]),
)
def test_any_participants_with_any_weights(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[str]], every: int
) -> None:
    federation = Federation(fed_rec(tmp_path_factory.mktemp("rec"), every=every), len(rounds))
    for participants in rounds:
        federation.check(federation.round(*participants))


def test_metisfl_defect_asynchronous_fedrec_only_ever_uses_the_first_learner(tmp_path: Path) -> None:
    """MetisFL's asynchronous FedRec only ever used the first learner. Here each that arrives alone moves the model."""
    federation = Federation(fed_rec(tmp_path))
    models = []
    for number in range(12):
        models.append(federation.round("abcd"[number % 4])["w"].copy())
        federation.check({"w": models[-1]})
    assert all((one != other).any() for one, other in pairwise(models))


def test_within_1e_6_of_recomputation_after_1000_replacements(tmp_path: Path) -> None:
    federation = Federation(fed_rec(tmp_path, every=10**6))
    for number in range(40):
        # Models of very different size, so that what is left of the large ones would show.
        got = federation.round(*"abcde" * 5, magnitude=1e4 if number % 7 == 0 else 1.0)
    federation.check(got, 1e-6)
    federation.rule._recompute()
    federation.rule.reset()
    again = LAYOUT.views(federation.rule.finish())
    np.testing.assert_allclose(got["w"], again["w"], rtol=0, atol=1e-6)
    federation.check(again)


def exact_mean(federation: Federation, name: str) -> list[Fraction]:
    """In rational numbers, element by element."""
    total = sum(Fraction(weight) for _, weight in federation.last.values())
    sums = [Fraction(0)] * LAYOUT.views(LAYOUT.allocate())[name].size
    for arrays, weight in federation.last.values():
        sums = [each + Fraction(weight) * Fraction(float(x)) for each, x in zip(sums, arrays[name], strict=True)]
    return [each / total for each in sums]


@FAST
@given(
    rounds=st.lists(
        st.tuples(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), st.integers(-12, 30)),
        min_size=2,
        max_size=10,
    ),
    every=st.sampled_from([1, 10, 1000]),
)
@example(rounds=[(["a", "b"], 18), (["a", "b"], 0)], every=1000)
@example(rounds=[(["a", "b"], 9), (["a"], 0), (["b"], 0), (["b"], -9)], every=1000)
def test_models_of_any_size_leave_nothing_behind_when_they_are_replaced(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[list[str], int]], every: int
) -> None:
    federation = Federation(fed_rec(tmp_path_factory.mktemp("rec"), every=every))
    for participants, exponent in rounds:
        got = federation.round(*participants, magnitude=10.0**exponent)["wide"]
        total = sum(weight for _, weight in federation.last.values())
        largest = sum(weight * np.abs(arrays["wide"]).max() for arrays, weight in federation.last.values()) / total
        allowed = (2 * every + len(federation.last) + 3) * 2.0**-53 * largest
        for x, mean in zip(got, exact_mean(federation, "wide"), strict=True):
            assert abs(Fraction(float(x)) - mean) <= allowed


@pytest.mark.parametrize("count", [1, 0])  # 0: such as num_batches_tracked of a frozen BatchNorm
@pytest.mark.parametrize(("every", "anew"), [(8, [8]), (0, [*range(9)])])
def test_models_of_one_size_are_replaced_so_often_before_the_sums_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, every: int, anew: list[int]
) -> None:
    made: list[int] = []
    monkeypatch.setattr(FedRec, "_recompute", lambda self: made.append(replaced))
    rule = fed_rec(tmp_path, every=every)
    content = LAYOUT.pack({"w": np.ones(1000, np.float32), "wide": np.ones(33), "n": np.full(5, count)})
    for replaced in range(9):  # noqa: B007 - the method above tells it
        rule.fold([Staged(content, 3.0, "a")])
        rule.finish()
    assert made == anew


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.5, -7.25, 3], np.float16),
        np.array([-0.0, 0.0], np.float32),
        np.array([np.finfo(np.float64).tiny / 4, -np.finfo(np.float64).max]),
        np.array([-3.5, 2], "bfloat16"),
        np.array([np.iinfo(np.int64).min, 5]),
        np.array([7, 200], np.uint8),
        np.array([False, True]),
        np.zeros(0, np.float32),
        np.linspace(-1, 0.5, 600_000),
    ],
    ids=lambda array: f"{array.dtype}-{array.size}",
)
def test_the_largest_magnitude(array: np.ndarray) -> None:
    wide = array.astype(object) if array.dtype.kind in "iu" else array.astype(np.float64)
    assert largest_of(array) == float(max((abs(x) for x in wide), default=0))


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    federation = Federation(fed_rec(tmp_path))
    federation.round("a", "b", "c")
    federation.check(federation.round("b"))
    state = {name: array.copy() for name, array in federation.rule.state().items()}
    federation.rule = fed_rec(tmp_path)
    federation.rule.restore(state)
    federation.check(federation.round("c"))


def test_what_was_folded_for_a_round_that_was_never_committed_does_not_count(tmp_path: Path) -> None:
    federation = Federation(fed_rec(tmp_path))
    federation.round("a", "b")
    committed, state = dict(federation.last), dict(federation.rule.state())
    federation.rule.reset()
    federation.rule.fold([federation.upload("a"), federation.upload("z")])
    # A controller that starts again, and one that begins another round.
    restarted = fed_rec(tmp_path)
    restarted.restore(state)
    for rule in (restarted, federation.rule):
        federation.rule, federation.last = rule, dict(committed)
        federation.check(federation.round("b"))


def test_files_are_one_for_each_learner_and_of_no_version_before(tmp_path: Path) -> None:
    federation = Federation(fed_rec(tmp_path))
    for _ in range(3):
        federation.round("a", "b", "b")
        federation.rule.state()
    federation.rule.reset()
    assert sorted(path.name.partition(".")[0] for path in tmp_path.iterdir()) == ["a", "b"]
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {LAYOUT.nbytes}


def test_files_that_a_stored_version_names_stay_while_versions_are_not_stored(tmp_path: Path) -> None:
    """Asynchronous protocols store every n-th version: what it names must outlive those that come after."""
    federation = Federation(fed_rec(tmp_path))
    federation.round("a", "b")
    stored, last = dict(federation.rule.state()), dict(federation.last)
    for _ in range(3):
        federation.round("a")
    federation.rule, federation.last = fed_rec(tmp_path), last
    federation.rule.restore(stored)
    federation.check(federation.round("b"))


@pytest.mark.parametrize("harm", ["damaged", "shorter", "missing"])
def test_a_file_that_is_not_as_it_was_is_noticed(tmp_path: Path, harm: str) -> None:
    federation = Federation(fed_rec(tmp_path))
    federation.round("a", "b")
    (path,) = tmp_path.glob("b.*")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    match harm:
        case "damaged":
            path.write_bytes(content)
        case "shorter":
            path.write_bytes(content[:-1])
        case "missing":
            path.unlink()
    with pytest.raises((ValueError, OSError), match=path.name):
        fed_rec(tmp_path).restore(federation.rule.state())


def test_a_state_that_is_not_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names the learners' last models"):
        fed_rec(tmp_path).restore({"momentum": np.zeros(4, np.uint8)})
    with pytest.raises(ValueError, match="manifest"):
        fed_rec(tmp_path).restore({"contributions": np.frombuffer(b'{"a": 3}', np.uint8)})


@FAST
@given(
    codec=st.sampled_from(tuple(Codec)),
    dtype=st.sampled_from(FLOATS),
    updates=st.booleans(),
    scaled=st.booleans(),
    clipped=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_updates_clipping_and_scales(
    tmp_path_factory: pytest.TempPathFactory,
    codec: Codec,
    dtype: str,
    updates: bool,
    scaled: bool,
    clipped: bool,
    seed: int,
) -> None:
    one = Round(np.random.default_rng(seed), codec, dtype, 1000, 4, scaled, updates)
    norms = [one.norm(upload) for upload in one.uploads]
    bound = float(np.median(norms)) if clipped else np.inf
    options = MeanOptions(clip=NormClip(bound, one.encoding) if clipped else None)
    rule = fed_rec(tmp_path_factory.mktemp("rec"), one.encoding, options)
    rule.reset()
    rule.fold(one.uploads[:2], one.whole)
    got = one.layout.views(rule.finish(one.whole, one.uploads[2:]))
    weights = [upload.weight for upload in one.uploads]
    scales = [u.scale * min(1.0, bound / norm) for u, norm in zip(one.uploads, norms, strict=True)]
    for name in stepped(one.layout):
        base = one.start[name].astype(np.float64)
        models = [
            (base + scale * one.change(upload)[name]).astype(got[name].dtype).astype(np.float64)
            for upload, scale in zip(one.uploads, scales, strict=True)
        ]
        expected = np.average(models, axis=0, weights=weights)
        # A model may lie on the other side of a tie, and the mean then by a quarter of a step.
        eps = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24, "float64": 2**-50}[got[name].dtype.name]
        largest = np.max(np.abs(models), axis=0) + np.abs(expected)
        assert (np.abs(got[name].astype(np.float64) - expected) <= 2.1 * eps * largest + 1e-300).all()
    for name, expected in one.averaged().items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-6)


def test_mapped_memory_gives_the_same_bits_tile_by_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_TILE", 1 << 12)
    one = Round(np.random.default_rng(8), Codec.INT8, "float32", 30_001, 5)
    models = []
    for folder, allocate in (("memory", aligned_zeros), ("files", lambda nbytes: mapped_zeros(tmp_path, nbytes))):
        rule = fed_rec(tmp_path / folder, one.encoding, MeanOptions(allocate=allocate))
        for uploads in (one.uploads[:3], one.uploads[2:]):
            rule.reset()
            rule.fold(uploads[:-1], one.whole)
            models.append(rule.finish(one.whole, uploads[-1:]))
    np.testing.assert_array_equal(models[0], models[2])
    np.testing.assert_array_equal(models[1], models[3])


def test_a_server_optimizer_steps_towards_the_mean(tmp_path: Path) -> None:
    def options() -> MeanOptions:
        return MeanOptions(optimizer=ServerOptimizer(momentum(0.5, 0.0), LAYOUT))

    federation = Federation(fed_rec(tmp_path, options=options()))
    base: Buffer = LAYOUT.pack({"w": np.ones(1000, np.float32), "wide": np.ones(33), "n": np.zeros(5, np.int64)})
    federation.rule.reset()
    got = LAYOUT.views(federation.rule.finish(base, [federation.upload("a"), federation.upload("b")]))
    weights = [weight for _, weight in federation.last.values()]
    mean = np.average([arrays["wide"] for arrays, _ in federation.last.values()], 0, weights)
    np.testing.assert_allclose(got["wide"], 1 + 0.5 * (mean - 1), rtol=1e-12)
    state = dict(federation.rule.state())
    assert set(state) == {"contributions", "momentum"}
    fed_rec(tmp_path, options=options()).restore(state)

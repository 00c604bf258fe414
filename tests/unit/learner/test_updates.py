"""What is uploaded: whole models bit for bit, differences within their codec's bound, and nothing lost with TopK."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metisfl.logs import logger
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl.wire.codecs import Codec
from metisfl.wire.layout import Layout
from metisfl.wire.transport import Transport
from metisfl_learner.checks import LearnerError
from metisfl_learner.feedback import ErrorFeedback
from metisfl_learner.keeping import InFile, InMemory
from metisfl_learner.updates import Stores, UpdateEncoder

ARRAYS = {
    "w": np.linspace(-1, 1, 200, dtype=np.float32),
    "steps": np.arange(3),
    "v": np.linspace(0, 5, 50),
    "mean": np.full(4, 0.5, np.float32),
}
LAYOUT = Layout.of(ARRAYS, frozen=("mean",))
BASE = LAYOUT.pack(ARRAYS)


def moved(by: float = 1.0) -> Any:
    """A model away from BASE: every float by another amount, up to `by`."""
    rng = np.random.default_rng(5)
    return LAYOUT.pack(
        {
            name: array + (rng.uniform(-by, by, array.shape) if array.dtype.kind == "f" else 10).astype(array.dtype)
            if array.dtype.kind == "f"
            else array + 10
            for name, array in ARRAYS.items()
        }
    )


def encoder(codec: Codec, fraction: float = 0.1) -> UpdateEncoder:
    return UpdateEncoder(Transport(codec, fraction), LAYOUT, Stores())


def test_float32_uploads_the_model_itself() -> None:
    model = moved()
    content = encoder(Codec.FLOAT32).trained("t", model, BASE)
    assert content.kind == pb.UPLOAD_KIND_MODEL
    assert content.buffers[0] is model  # and so bit for bit, without a copy
    assert content.checksums[0] == frames.section_checksum(model.data)


@pytest.mark.parametrize("codec", list(Codec))
def test_an_initial_model_is_whole_and_lossless_in_every_codec(codec: Codec) -> None:
    content = encoder(codec).whole(BASE)
    assert (content.kind, content.sections.model.codec) == (pb.UPLOAD_KIND_MODEL, Codec.FLOAT32)
    assert content.buffers[0] is BASE


@pytest.mark.parametrize("codec", [Codec.BFLOAT16, Codec.FLOAT16, Codec.INT8, Codec.TOPK])
def test_lossy_codecs_upload_differences_and_whole_values_of_the_rest(codec: Codec) -> None:
    model = moved()
    content = encoder(codec, fraction=1.0).trained("t", model, BASE)
    assert content.kind == pb.UPLOAD_KIND_UPDATE
    got = LAYOUT.views(content.sections.model.decode(content.buffers[0]))
    local, base = LAYOUT.views(model), LAYOUT.views(BASE)
    for name in ("w", "v"):
        assert np.abs(got[name] - (local[name].astype(float) - base[name])).max() <= 1 / 250
    for name in ("steps", "mean"):
        assert got[name].tobytes() == local[name].tobytes()


def test_updates_in_float32_are_exact_differences_and_whole_values_of_the_rest() -> None:
    model = moved()
    made = UpdateEncoder(Transport(Codec.FLOAT32, updates=True), LAYOUT, Stores())
    content = made.trained("t", model, BASE)
    assert content.kind == pb.UPLOAD_KIND_UPDATE
    got, local = LAYOUT.views(content.buffers[0]), LAYOUT.views(model)
    for name in ("w", "v"):
        assert np.array_equal(got[name], local[name] - ARRAYS[name])
    for name in ("steps", "mean"):
        assert got[name].tobytes() == local[name].tobytes()
    assert made.whole(model).kind == pb.UPLOAD_KIND_MODEL


def test_a_difference_beyond_its_dtype_is_the_learners_error() -> None:
    layout = Layout.of({"v": np.zeros(3, np.float32)})
    made = UpdateEncoder(Transport(Codec.FLOAT32, updates=True), layout, Stores())
    largest = np.full(3, np.finfo(np.float32).max)
    with pytest.raises(LearnerError, match="it ends where the tensor's own dtype does"):
        made.trained("t", layout.pack({"v": largest}), layout.pack({"v": -largest}))


@pytest.mark.parametrize(("codec", "by"), [(Codec.FLOAT16, 1e5), (Codec.BFLOAT16, 1e39)])
def test_an_update_beyond_the_codec_is_the_learners_error(codec: Codec, by: float) -> None:
    layout = Layout.of({"v": np.zeros(3)})
    trained = layout.pack({"v": np.array([0, by, 0.0])})
    made = UpdateEncoder(Transport(codec), layout, Stores())
    with pytest.raises(LearnerError, match=f"more than codec {codec} can hold: tensor 'v' holds NaN or infinity"):
        made.trained("t", trained, layout.allocate())


# ---- error feedback


FLAT = Layout.of({"a": np.zeros(30, np.float32), "b": np.zeros(10)})
ENCODING = Transport(Codec.TOPK, 0.2).upload(FLAT)


def pack(values: Any) -> Any:
    return FLAT.pack({"a": np.asarray(values[:30], np.float32), "b": np.asarray(values[30:], np.float64)})


def flat(buffer: Any) -> Any:
    return np.concatenate([view.astype(np.float64) for view in FLAT.views(buffer).values()])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**31)), min_size=1, max_size=8))
def test_what_is_left_out_is_sent_later_and_counted_once(uploads: list[tuple[bool, int]]) -> None:
    """Sent by accepted uploads + residual = the sum of the accepted updates, whatever was refused between them."""
    store = InMemory()
    feedback = ErrorFeedback(store)
    changed, sent = np.zeros(40), np.zeros(40)
    for number, (accepted, seed) in enumerate(uploads):
        # Small integers: their sums are exact in float32.
        change = np.random.default_rng(seed).integers(-50, 50, 40).astype(float)
        content = feedback.encode(str(number), ENCODING, pack(change), FLAT.allocate())
        if accepted:
            feedback.accepted(str(number))
            changed += change
            sent += flat(ENCODING.decode(content))
        elif seed % 2:
            feedback.forget(str(number))
    residual = store.load(40)
    kept = np.zeros(40) if residual is None else residual
    assert np.array_equal(sent + kept, changed)


def test_a_value_too_small_to_be_sent_is_sent_once_it_has_added_up() -> None:
    feedback = ErrorFeedback(InMemory())
    change = np.zeros(40)
    change[:6] = 10  # of 30 values, six are kept
    change[29] = 3
    arrived = []
    for number in range(5):
        content = feedback.encode(str(number), ENCODING, pack(change), FLAT.allocate())
        feedback.accepted(str(number))
        arrived.append(flat(ENCODING.decode(content))[29])
    assert arrived == [0, 0, 0, 12, 0]


def test_only_the_task_that_was_accepted_advances_the_residual() -> None:
    store = InMemory()
    feedback = ErrorFeedback(store)
    feedback.encode("one", ENCODING, pack(np.arange(40.0)), FLAT.allocate())
    feedback.accepted("another")
    assert store.load(40) is None
    feedback.forget("another")
    feedback.accepted("one")
    first = store.load(40)
    assert first is not None
    feedback.accepted("one")
    assert np.array_equal(store.load(40), first)  # a duplicate's receipt changes nothing


def test_the_content_does_not_change_when_the_residual_does() -> None:
    """A held result may be sent again after its acceptance; its checksum is long fixed."""
    made = UpdateEncoder(Transport(Codec.TOPK, 0.1), LAYOUT, Stores())
    first = made.trained("one", moved(), BASE)
    before = first.buffers[0].tobytes()
    made.accepted("one")
    made.trained("two", moved(2.0), BASE)
    assert first.buffers[0].tobytes() == before
    assert first.checksums[0] == frames.section_checksum(first.buffers[0].data)


Make = Callable[[], InFile]


@pytest.fixture
def make_file(tmp_path: Path) -> Make:
    return lambda: InFile(tmp_path / "state", "residual", np.float32, "uid/silo-0/layout", logger("test"))


def test_a_residual_outlives_the_process(make_file: Make) -> None:
    feedback = ErrorFeedback(make_file())
    feedback.encode("one", ENCODING, pack(np.arange(40.0)), FLAT.allocate())
    feedback.accepted("one")
    again = make_file().load(40)
    assert again is not None
    assert again.tolist() == [*range(24), *[0] * 6, *range(30, 38), 0, 0]


@pytest.mark.parametrize("damage", ["missing", "cut", "another size", "not finite", "no array"])
def test_a_lost_residual_is_logged_and_begins_at_zero(
    make_file: Make, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file = make_file()
    file.save(np.full(40, np.nan if damage == "not finite" else 1, np.float32))
    (path,) = (tmp_path / "state").iterdir()
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-10])
        case "no array":
            path.write_bytes(b"")
    assert file.load(41 if damage == "another size" else 40) is None
    assert "at zero" in caplog.text


def test_a_full_disk_is_logged_and_harmless(
    make_file: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    make_file().save(np.ones(4, np.float32))
    assert "the residual could not be kept" in caplog.text


def test_each_federation_learner_and_layout_has_its_own_residual(tmp_path: Path) -> None:
    for owner in ("uid/a-0/x", "uid/a-1/x", "../../x"):
        InFile(tmp_path, "residual", np.float32, owner, logger("test")).save(np.ones(1, np.float32))
    assert len(list(tmp_path.iterdir())) == 3

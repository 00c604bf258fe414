"""Model files, with the safetensors library as the judge of what they hold."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from metisfl.wire.layout import Layout
from metisfl_controller.aggregation.mapped import is_mapped, mapped_zeros
from metisfl_controller.state.models import read_model, write_model

DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def arrays_of(shapes: list[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {
        f"t{number}.{dtype}": random.integers(0, 2, shape).astype(dtype) for number, (dtype, shape) in enumerate(shapes)
    }


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3).map(tuple)), min_size=1, max_size=6
    ),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
def test_the_library_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[str, tuple[int, ...]]], metadata: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("models") / "v.safetensors"
    arrays = arrays_of(shapes)
    layout = Layout.of(arrays)
    sha256, size = write_model(path, layout, layout.pack(arrays), metadata)
    assert (sha256, size) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    found = load_file(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
    with safe_open(path, "np") as file:
        assert (file.metadata() or {}) == metadata
    assert read_model(path, layout, sha256).tobytes() == layout.pack(arrays).tobytes()


def test_bfloat16_is_what_torch_reads(tmp_path: Path) -> None:
    values = np.array([1.5, -2.0, 3.0e38, 2.0**-130], ml_dtypes.bfloat16)
    layout = Layout.of({"w": values, "scalar": values[0]})
    path = tmp_path / "v.safetensors"
    sha256, _ = write_model(path, layout, layout.pack({"w": values, "scalar": np.asarray(values[0])}), {})
    found = load_torch(path)
    assert found["w"].dtype == found["scalar"].dtype == torch.bfloat16
    assert found["w"].float().numpy().tolist() == values.astype(np.float32).tolist()
    assert layout.views(read_model(path, layout, sha256))["w"].tobytes() == values.tobytes()


def test_a_file_of_the_library_is_read(tmp_path: Path) -> None:
    arrays = arrays_of([("int8", (3,)), ("float64", (2, 5)), ("bool", ()), ("float32", (7,))])
    save_file(arrays, tmp_path / "v.safetensors", metadata={"a": "b"})
    sha256 = hashlib.sha256((tmp_path / "v.safetensors").read_bytes()).hexdigest()
    layout = Layout.of(arrays)
    found = layout.views(read_model(tmp_path / "v.safetensors", layout, sha256))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"w": np.zeros(3, np.float32)}, "tensor 'b' is missing"),
        ({"w": np.zeros(3, np.float32), "b": np.zeros(2), "x": np.zeros(1)}, "tensor 'x' is not part of the model"),
        ({"w": np.zeros((3, 1), np.float32), "b": np.zeros(2)}, r"tensor 'w' is F32\[3, 1\], expected float32\[3\]"),
        ({"w": np.zeros(3, np.int32), "b": np.zeros(2)}, r"tensor 'w' is I32\[3\], expected float32\[3\]"),
    ],
)
def test_another_layout_is_refused_with_names(tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str) -> None:
    path = tmp_path / "v.safetensors"
    other = Layout.of(arrays)
    sha256, _ = write_model(path, other, other.pack(arrays), {})
    with pytest.raises(ValueError, match=f"v.safetensors: .*{complaint}"):
        read_model(path, Layout.of({"w": np.zeros(3, np.float32), "b": np.zeros(2)}), sha256)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"no", b"\x05" + b"\0" * 7 + b"{}"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    """Even when it is the file that was committed."""
    path = tmp_path / "v.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v\.safetensors"):
        read_model(path, Layout.of({"w": np.zeros(3)}), hashlib.sha256(content).hexdigest())


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path, layout = tmp_path / "v.safetensors", Layout.of({"w": np.zeros(3)})
    sha256, size = write_model(path, layout, layout.allocate(), {})
    damaged = bytearray(path.read_bytes())
    damaged[size - 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"v\.safetensors is damaged"):
        read_model(path, layout, sha256)


def test_neither_way_holds_a_second_model(tmp_path: Path) -> None:
    """Of a model in a mapped file, no array in memory is ever as large as the model."""
    layout = Layout.of({"w": np.zeros((1000, 20_000), np.float32), "n": np.zeros(1, np.int8)})
    model = mapped_zeros(tmp_path, layout.nbytes)
    layout.views(model)["w"][:, 7] = 3
    tracemalloc.start()
    try:
        sha256, _ = write_model(tmp_path / "v.safetensors", layout, model, {})
        again = read_model(tmp_path / "v.safetensors", layout, sha256, lambda n: mapped_zeros(tmp_path, n))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < layout.nbytes / 10
    assert is_mapped(again)
    np.testing.assert_array_equal(again, model)

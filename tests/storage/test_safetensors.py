from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from maskhub.errors import FormatError, MissingError
from maskhub.storage.safetensors import TensorFile, write_header, write_tensors
from maskhub.storage.tensor import ITEM_SIZE, NUMPY_DTYPE, RawTensor
from tests.tiny import random_tensor


def raw_file(path: Path, header: object, body: bytes = b"", pad: int = 0) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


ARRAYS = st.sampled_from([np.dtype(code) for name, code in NUMPY_DTYPE.items() if name != "BOOL"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text(min_size=1).filter(lambda n: n != "__metadata__"), ARRAYS, max_size=5))
def test_written_files_are_what_the_safetensors_library_reads(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    with path.open("wb") as file:
        write_tensors(file, {name: RawTensor.from_numpy(array) for name, array in arrays.items()}, {"a": "é"})
    found = load_file(path)
    read = TensorFile(path)
    assert found.keys() == arrays.keys() == set(read)
    assert read.metadata == {"a": "é"}
    for name, array in arrays.items():
        assert found[name].tobytes() == array.tobytes() == read.read(name).data.tobytes()
        assert found[name].shape == array.shape == read.tensors[name].shape
        assert read.read(name).numpy().tobytes() == array.tobytes()


def test_tensors_are_stored_wide_first_and_aligned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {dtype: random_tensor(dtype, (3,), rng) for dtype in ("F8_E4M3", "BF16", "F64", "F16", "F32")}
    assert list(write_header(io.BytesIO(), tensors)) == ["F64", "F32", "BF16", "F16", "F8_E4M3"]
    with (tmp_path / "x").open("wb") as file:
        write_tensors(file, tensors)
    read = TensorFile(tmp_path / "x")
    assert all(read.tensors[n].start % ITEM_SIZE[t.dtype] == 0 for n, t in tensors.items())
    assert read.metadata == {}


def test_a_file_of_another_writer_may_be_unaligned(tmp_path: Path) -> None:
    values = np.array([1.5, -2, 3], np.float32)
    for pad in range(4):
        path = raw_file(
            tmp_path / f"{pad}",
            {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}},
            values.tobytes(),
            pad=pad,
        )
        tensor = TensorFile(path).read("a")
        assert np.array_equal(tensor.numpy(), values)
        assert np.array_equal(tensor.words(), values.view(np.uint32))


def test_raw_tensors_of_dtypes_that_numpy_lacks() -> None:
    tensor = RawTensor("BF16", (2,), np.array([0x80, 0x3F, 0, 0], np.uint8))
    assert tensor.words().tolist() == [0x3F80, 0]
    with pytest.raises(TypeError, match="NumPy has no dtype for BF16"):
        tensor.numpy()


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("just a text, longer than eight bytes")
    (tmp_path / "zip").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "zeros").write_bytes(bytes(100))
    (tmp_path / "huge").write_bytes(b"\xff" * 8 + b"{}")
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    raw_file(tmp_path / "short", {"a": entry}, b"abc")
    raw_file(tmp_path / "long", {"a": entry}, b"abcde")
    raw_file(tmp_path / "overlap", {"a": entry, "b": entry}, b"abcd")
    raw_file(tmp_path / "backwards", {"a": entry | {"data_offsets": [4, 0]}}, b"abcd")
    raw_file(tmp_path / "shape", {"a": entry | {"shape": [5]}}, b"abcd")
    raw_file(tmp_path / "overflow", {"a": entry | {"shape": [1 << 33, 1 << 33]}}, b"abcd")
    raw_file(tmp_path / "list", [])
    raw_file(tmp_path / "deep", b'{"a":' * 5000 + b"1" + b"}" * 5000)
    raw_file(tmp_path / "latin-1", '{"é":1}'.encode("latin-1"))
    raw_file(tmp_path / "surrogate", b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')
    raw_file(tmp_path / "metadata", {"__metadata__": {"a": 1}})
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(FormatError, match=f"{path.name}: not a safetensors file, or cut short"):
            TensorFile(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, reason in {
        tmp_path: "a folder, not a file",
        tmp_path / "absent": "no such file",
        tmp_path / "dangling": "no such file",
        Path("/dev/null"): "a device, not a file",
        tmp_path / ("x" * 300): "cannot be read: File name too long",
    }.items():
        with pytest.raises(MissingError if reason == "no such file" else FormatError, match=reason):
            TensorFile(path)


def test_a_dtype_of_half_bytes_is_refused_by_name(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "x", {"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, b"ab")
    with pytest.raises(FormatError, match="tensor a has dtype F4, which MaskHub cannot read"):
        TensorFile(path)


@pytest.mark.parametrize("dtype", sorted(ITEM_SIZE))
def test_every_known_dtype_is_one_of_the_library(tmp_path: Path, dtype: str) -> None:
    size = 2 * ITEM_SIZE[dtype]
    path = raw_file(tmp_path / "x", {"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, size]}}, bytes(size))
    assert TensorFile(path).read("a").words().tolist() == [0, 0]


def test_every_length_of_a_cut_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.arange(20, dtype=np.int16), "b": np.zeros(3)}, tmp_path / "x")
    for length in reversed(range((tmp_path / "x").stat().st_size)):
        os.truncate(tmp_path / "x", length)
        with pytest.raises(FormatError):
            TensorFile(tmp_path / "x")

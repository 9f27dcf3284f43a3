from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhub.checkpoints import apply as dense
from maskhub.checkpoints.checkpoint import INDEX, TORCH_INDEX, TORCH_WEIGHTS, WEIGHTS, Checkpoint, open_checkpoint
from maskhub.errors import BaseMismatchError, FormatError, MissingError
from maskhub.storage.digest import base_root
from maskhub.storage.safetensors import TensorFile
from maskhub.storage.torch import TorchFile
from tests import tiny

torch = pytest.importorskip("torch")

from maskhub.storage.torch import DTYPES, to_torch  # noqa: E402


def as_torch(folder: Path, to: Path, **options: Any) -> Path:
    """The checkpoint of ``folder`` as PyTorch files: each safetensors file as one ``.bin``, and so the index."""
    to.mkdir()
    names = {}
    base = open_checkpoint(folder)
    for shard in base.shards:
        old = Path(shard.path).name
        names[old] = old.replace("model", "pytorch_model", 1).replace(".safetensors", ".bin")
        torch.save(OrderedDict((name, to_torch(shard.read(name))) for name in shard), to / names[old], **options)
    for file in folder.iterdir():
        if file.name == INDEX:
            index = json.loads(file.read_bytes())
            index["weight_map"] = {name: names[old] for name, old in index["weight_map"].items()}
            (to / TORCH_INDEX).write_text(json.dumps(index))
        elif file.suffix != ".safetensors":
            (to / file.name).write_bytes(file.read_bytes())
    return to


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def values(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {n: ((t := checkpoint.read(n)).dtype, t.shape, t.data.tobytes()) for n in checkpoint}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])  # the old files know no others
def test_the_kind_of_file_does_not_matter(tmp_path: Path, dtype: str, shards: int, old: bool) -> None:
    folder = tiny.write_base(tmp_path / "a", dtype, shards=shards, integers=True)
    expected = open_checkpoint(folder)
    options = {"_use_new_zipfile_serialization": False} if old else {}
    read = open_checkpoint(as_torch(folder, tmp_path / "b", **options))
    assert len(read.shards) == shards
    assert all(isinstance(shard, TorchFile) for shard in read.shards)
    assert values(read) == values(expected)
    assert {n: read.info(n).nbytes for n in read} == {n: expected.info(n).nbytes for n in expected}
    digests = {n: read.digest(n) for n in read}
    assert base_root(digests) == base_root({n: expected.digest(n) for n in expected})
    assert read.size == sum(file.stat().st_size for file in (tmp_path / "b").glob("*.bin"))
    assert read.config() == expected.config()
    assert tiny.tiny_maskset(read).id == tiny.tiny_maskset(expected).id


def test_safetensors_go_before_pytorch(base_folder: Path, tmp_path: Path) -> None:
    folder = as_torch(base_folder, tmp_path / "b")
    assert isinstance(open_checkpoint(folder).shards[0], TorchFile)
    (folder / WEIGHTS).write_bytes((base_folder / WEIGHTS).read_bytes())
    assert isinstance(open_checkpoint(folder).shards[0], TensorFile)
    (folder / TORCH_WEIGHTS).write_bytes(b"not even opened")
    assert set(open_checkpoint(folder)) == tiny.SHAPES.keys()


def test_one_file_is_a_checkpoint_too(base_folder: Path, tmp_path: Path) -> None:
    folder = as_torch(base_folder, tmp_path / "b")
    assert values(open_checkpoint(folder / TORCH_WEIGHTS)) == values(open_checkpoint(base_folder))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_passed_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    width = torch.empty((), dtype=getattr(torch, DTYPES[dtype])).element_size()
    data = np.random.default_rng(0).integers(0, 2 if dtype == "BOOL" else 256, 6 * width, dtype=np.uint8)
    tensor = torch.from_numpy(data).view(getattr(torch, DTYPES[dtype])).reshape(2, 3)
    read = TorchFile(save(tmp_path / "a.bin", {"a": tensor})).read("a")
    assert (read.dtype, read.shape, read.data.tobytes()) == (dtype, (2, 3), data.tobytes())


def test_tensors_however_they_lie_in_their_storage(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int32).reshape(4, 6)
    whole = torch.from_numpy(array)
    state = {
        "tied": whole, "whole": whole, "transposed": whole.t(), "rows": whole[1:3], "columns": whole[:, 1::2],
        "scalar": torch.tensor(7, dtype=torch.int32), "empty": torch.empty((0, 3), dtype=torch.int32),
        "parameter": torch.nn.Parameter(torch.ones(2)), "repeated": torch.tensor([5], dtype=torch.int32).expand(1, 1),
        "odd": torch.zeros(10, dtype=torch.uint8)[:8].view(torch.float32),
    }  # fmt: skip
    file = TorchFile(save(tmp_path / "a.bin", state))
    assert list(file) == list(state)
    expected = {
        "tied": array, "whole": array, "transposed": array.T, "rows": array[1:3], "columns": array[:, 1::2],
        "scalar": np.array(7, np.int32), "empty": np.empty((0, 3), np.int32),
        "parameter": np.ones(2, np.float32), "repeated": np.array([[5]], np.int32), "odd": np.zeros(2, np.float32),
    }  # fmt: skip
    for name, wanted in expected.items():
        read = file.read(name)
        assert file.tensors[name].shape == read.shape == wanted.shape
        assert read.data.tobytes() == wanted.tobytes()
        assert file.tensors[name].nbytes == wanted.nbytes


def test_dense_checkpoints_of_such_a_base(tmp_path: Path) -> None:
    folder = tiny.write_base(tmp_path / "a", shards=3, integers=True)
    base = open_checkpoint(as_torch(folder, tmp_path / "b"))
    maskset = tiny.tiny_maskset(open_checkpoint(folder))
    dense.verify_base(base, maskset)
    expected = tiny.build(open_checkpoint(folder), maskset, tmp_path / "one")
    out = tiny.build(base, maskset, tmp_path / "two")
    assert len(list(out.glob("model-*-of-00003.safetensors"))) == 3
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in expected.iterdir()}
    other = open_checkpoint(as_torch(tiny.write_base(tmp_path / "c", seed=1), tmp_path / "d"))
    with pytest.raises(BaseMismatchError, match="not the base this mask was made for"):
        tiny.build(other, maskset, tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_tied_tensors_are_written_by_the_name_that_is_bound(base_folder: Path, tmp_path: Path) -> None:
    folder = as_torch(base_folder, tmp_path / "b")
    state = torch.load(folder / TORCH_WEIGHTS, weights_only=True)
    words = "embeddings.word_embeddings.weight"
    save(folder / TORCH_WEIGHTS, state | {"decoder.weight": state[words]})
    base, maskset = open_checkpoint(folder), tiny.tiny_maskset(base_folder)
    assert base.digest("decoder.weight") == base.digest(words)
    out = open_checkpoint(tiny.build(base, maskset, tmp_path / "out"))
    assert set(out) == {*(f"bert.{name}" for name in tiny.SHAPES), *maskset.dense}
    assert out.read(f"bert.{words}").data.tobytes() == base.read(words).data.tobytes()


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["new", "old", "pickle", "among tensors"])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, kind: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / TORCH_WEIGHTS
    evil = Evil(marker)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        content = {"a": torch.ones(2), "b": evil} if kind == "among tensors" else evil
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old")
    with pytest.raises(FormatError, match=r"pytorch_model\.bin: (holds more than tensors \(|damaged, or no)") as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    if kind == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists()  # so the file would have worked


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "no state dict: list"),
        (torch.ones(1), "no state dict: Tensor"),
        ({"a": torch.ones(1), "b": {"c": 1}}, "no state dict: 'b' is dict, not a tensor"),
        ({"state_dict": {"a": torch.ones(1)}}, "no state dict: 'state_dict' is dict, not a tensor"),
        ({"a": 1.5}, "no state dict: 'a' is float, not a tensor"),
        ({"a": [torch.ones(1)]}, "no state dict: 'a' is list, not a tensor"),
        ({1: torch.ones(1)}, "no state dict: 1 is Tensor, not a tensor"),
        ({"a": torch.eye(2).to_sparse()}, "tensor a is torch.float32, torch.sparse_coo: only dense ones are read"),
        ({"a": torch.ones(1, dtype=torch.complex128)}, "tensor a is torch.complex128, torch.strided: only dense"),
        ({"a": torch.ones(2, dtype=torch.complex64).conj().imag}, "only dense ones are read"),
        ({"a": torch.ones(1).expand(1 << 20, 1 << 20)}, "tensor a is larger than what is stored of it"),
    ],
)
def test_what_is_no_plain_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    save(tmp_path / TORCH_WEIGHTS, content)
    with pytest.raises(FormatError, match=rf"{TORCH_WEIGHTS}: .*{message}") as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("old", [False, True])
def test_cut_files(base_folder: Path, tmp_path: Path, old: bool) -> None:
    path = as_torch(base_folder, tmp_path / "b", _use_new_zipfile_serialization=not old) / TORCH_WEIGHTS
    content = path.read_bytes()
    for size in (0, 1, 2, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError, match=r"pytorch_model\.bin: damaged, or no PyTorch file") as caught:
            open_checkpoint(tmp_path / "b")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", ["data/0", "data/1", "data/2"])
def test_tensors_shorter_than_the_pickle_says(tmp_path: Path, cut: str) -> None:
    """Without a check, torch would go on reading in the next tensor."""
    saved = io.BytesIO()
    torch.save({"a": torch.ones(64), "b": torch.ones(64), "c": torch.ones(32)}, saved)
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(tmp_path / TORCH_WEIGHTS, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, content[:-4] if entry.filename.endswith(cut) else content)
    with pytest.raises(FormatError, match=r"pytorch_model\.bin: damaged"):
        open_checkpoint(tmp_path)


def test_a_compressed_file(tmp_path: Path) -> None:
    saved = io.BytesIO()
    torch.save({"a": torch.ones(64)}, saved)
    with (
        zipfile.ZipFile(saved) as old,
        zipfile.ZipFile(tmp_path / TORCH_WEIGHTS, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(FormatError, match="a PyTorch file is not compressed, and this one is"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ("{", FormatError, f"{TORCH_INDEX}: not valid JSON"),
        ('{"weight_map": []}', FormatError, f"{TORCH_INDEX}: the field 'weight_map' does not map tensors to files"),
        ('{"weight_map": {"a": "../b/pytorch_model.bin"}}', FormatError, "'weight_map' does not map"),
        ('{"weight_map": {"a": "/etc/passwd"}}', FormatError, "'weight_map' does not map"),
        ('{"weight_map": {"a": ".."}}', MissingError, "the shard is missing"),
        ('{"weight_map": {"a": "no.bin"}}', MissingError, f"no.bin: the shard is missing, and {TORCH_INDEX} names"),
        ('{"weight_map": {"a": "config.json"}}', FormatError, "config.json: damaged, or no PyTorch file"),
        (
            '{"weight_map": {"x": "1.bin"}}',
            FormatError,
            f"1.bin: {TORCH_INDEX} places tensor x here, but the shard lacks it",
        ),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, index: str, error: type[Exception], message: str) -> None:
    save(tmp_path / "1.bin", {"a": torch.ones(1)})
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / TORCH_INDEX).write_text(index)
    with pytest.raises(error, match=message):
        open_checkpoint(tmp_path)


@pytest.fixture
def torch_folder(base_folder: Path, tmp_path: Path) -> Path:
    return as_torch(base_folder, tmp_path / "torch")


def test_a_model_in_the_hub_cache_is_opened_offline(torch_folder: Path, tmp_path: Path) -> None:
    snapshot, commit = tiny.hub_cache(tmp_path, "user/tiny", torch_folder)
    child = subprocess.run(
        [sys.executable, "-c", tiny.OPEN, "user/tiny"],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    sha = hashlib.sha256((torch_folder / TORCH_WEIGHTS).read_bytes()).hexdigest()
    expected = ["user/tiny", str(snapshot), "user/tiny", commit, {TORCH_WEIGHTS: sha}, len(tiny.SHAPES)]
    assert json.loads(child.stdout) == expected


@pytest.mark.parametrize("safetensors", [True, False])
def test_pytorch_files_are_fetched_where_there_are_no_others(
    base_folder: Path, torch_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safetensors: bool
) -> None:
    if safetensors:
        shutil.copyfile(base_folder / WEIGHTS, torch_folder / WEIGHTS)
    (torch_folder / "pytorch_model.fp16.bin").write_text("a variant")
    snapshot = tmp_path / ("c0ffee" + "0" * 34)
    snapshot.mkdir()
    revisions = []

    def snapshot_download(repo: str, *, revision: str | None, allow_patterns: list[str], **options: Any) -> str:
        revisions.append(revision)
        for file in torch_folder.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copyfile(file, snapshot / file.name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    read = open_checkpoint("user/tiny@main")
    assert revisions == (["main"] if safetensors else ["main", snapshot.name])
    assert [Path(shard.path).name for shard in read.shards] == [WEIGHTS if safetensors else TORCH_WEIGHTS]
    weights = {file.name for file in snapshot.iterdir() if file.suffix in (".bin", ".safetensors")}
    assert weights == {WEIGHTS if safetensors else TORCH_WEIGHTS}
    assert values(read) == values(open_checkpoint(base_folder))


WITHOUT_TORCH = """if True:
    import sys
    sys.modules["torch"] = None
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.errors import MaskhubError
    open_checkpoint(sys.argv[1])
    try:
        open_checkpoint(sys.argv[2])
    except MaskhubError as error:
        print(error)
"""


def test_without_torch_only_such_files_are_refused(base_folder: Path, torch_folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, base_folder, torch_folder]
    child = subprocess.run(command, capture_output=True, text=True)
    assert (child.stdout, child.stderr) == ("PyTorch files need torch. Install it: pip install torch.\n", "")

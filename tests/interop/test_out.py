"""Files for other tools, read as those tools read them, and back again."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub import interop
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import ArgumentError, BaseMismatchError, MaskhubError, MissingError, OutputError
from maskhub.interop import hdf5
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import LazyMask, Mask, MaskSet
from maskhub.storage.tensor import Bytes, RawTensor
from tests import tiny
from tests.test_imports import HEAVY, loaded

h5py = pytest.importorskip("h5py")


def test_npz_is_maskllms(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    interop.export(maskset, tmp_path / "m.npz", "npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {f"bert.{name}.mask" for name in maskset.masks}
        for name, mask in maskset.masks.items():
            bits = np.unpackbits(arrays[f"bert.{name}.mask"])[: mask.size]
            assert np.array_equal(bits.reshape(mask.shape), mask.to_bool())
    assert interop.read(tmp_path / "m.npz", base).masks == maskset.masks


def test_safetensors_and_pt_hold_booleans(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    interop.export(maskset, tmp_path / "m.safetensors", "safetensors")
    interop.export(maskset, tmp_path / "m.pt", "pt")
    named = load_file(tmp_path / "m.safetensors")
    of_task = torch.load(tmp_path / "m.pt", weights_only=True)
    assert named.keys() == maskset.masks.keys()
    assert of_task.keys() == {f"bert.{n}.mask" for n in named}
    for name, mask in maskset.masks.items():
        assert named[name].dtype == of_task[f"bert.{name}.mask"].dtype == torch.bool
        assert np.array_equal(named[name].numpy(), mask.to_bool())
        assert np.array_equal(of_task[f"bert.{name}.mask"].numpy(), mask.to_bool())
    assert interop.read(tmp_path / "m.safetensors", base).masks == maskset.masks
    assert interop.read(tmp_path / "m.pt", base).masks == maskset.masks


LIMITED = """
import resource, sys
import maskhub
mask, output, to = sys.argv[1:]
mask = maskhub.open(mask)
maskhub.export(mask, output, to=to)  # what it imports, is
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    maskhub.export(mask, output, to=to, force=True)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("to", ["npz", "pt", "safetensors", "h5"])
def test_a_full_disk_is_told_as_such_whatever_library_writes(mask_path: Path, tmp_path: Path, to: str) -> None:
    output = tmp_path / f"m.{to}"
    arguments = [sys.executable, "-c", LIMITED, mask_path, output, to]
    child = subprocess.run(arguments, capture_output=True, text=True)
    assert child.stdout == f"OutputError {output}: cannot be written: File too large\n", child.stderr
    assert os.listdir(tmp_path) == [output.name]


def test_what_a_mask_raises_while_it_is_exported_is_not_blamed_on_the_output(maskset: MaskSet, tmp_path: Path) -> None:
    name, mask = next(iter(maskset.masks.items()))
    for error in (OSError(5, "Input/output error"), AttributeError("no such thing")):

        def broken(error: Exception = error) -> Bytes:
            raise error

        odd = dataclasses.replace(maskset, masks=dict(maskset.masks) | {name: LazyMask(mask.shape, broken)})
        vars(odd)["id"] = maskset.id
        for to in ("npz", "pt", "safetensors", "h5"):
            with pytest.raises(type(error)) as caught:
                interop.export(odd, tmp_path / "out", to)
            assert caught.value is error
    assert os.listdir(tmp_path) == []


def test_what_goes_wrong_with_an_open_bank_is_not_called_damage(maskset: MaskSet, tmp_path: Path) -> None:
    interop.export(maskset, tmp_path / "bank.h5", "h5")
    with pytest.raises(AttributeError), hdf5._open(tmp_path / "bank.h5") as bank:
        bank.no_such_thing  # noqa: B018


def test_of_a_mask_file(base: Checkpoint, mask_path: Path, maskset: MaskSet, tmp_path: Path) -> None:
    for to in interop.writable():
        interop.export(maskhub.open(mask_path), tmp_path / f"m.{to}", to)
        assert interop.read(tmp_path / f"m.{to}", base).masks == maskset.masks
    assert sorted(os.listdir(tmp_path)) == sorted(f"m.{to}" for to in interop.writable())


def test_a_bank_keeps_all(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    bank = tmp_path / "bank.h5"
    noted = dataclasses.replace(maskset, extra={"later": {"a": [1]}})
    interop.export(noted, bank, "h5")
    read = interop.read(bank, base)
    assert read.id == maskset.id
    assert (read.base, read.task, read.metrics, read.lineage) == (noted.base, noted.task, noted.metrics, noted.lineage)
    assert read.masks == noted.masks
    assert read.extra == noted.extra
    assert {n: t.data.tobytes() for n, t in read.dense.items()} == {n: t.data.tobytes() for n, t in noted.dense.items()}
    maskhub.save(read, tmp_path / "a.msk")
    maskhub.save(noted, tmp_path / "b.msk")
    assert (tmp_path / "a.msk").read_bytes() == (tmp_path / "b.msk").read_bytes()

    with h5py.File(bank) as file:
        group = file["bank"]
        assert group.attrs["id"] == maskset.id
        assert json.loads(group.attrs["manifest"])["base"]["root"] == maskset.base.root
        for name, mask in maskset.masks.items():
            dataset = group["masks"][name]
            assert dataset.chunks
            assert dataset.compression == "gzip"
            assert tuple(dataset.attrs["shape"]) == mask.shape
            assert np.array_equal(dataset[()], mask.bits)


def test_several_in_a_bank(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    bank = tmp_path / "bank.h5"
    others = [tiny.tiny_maskset(base, seed=seed) for seed in (1, 2)]
    interop.export(maskset, bank, "h5", name="first")
    interop.export(others[0], bank, "h5", name="second")
    assert interop.read(f"{bank}#first", base).id == maskset.id
    assert interop.read(f"{bank}#second", base).id == others[0].id
    with pytest.raises(MaskhubError, match="name one of its 2 mask sets: first, second"):
        interop.read(bank, base)
    before = bank.read_bytes()
    with pytest.raises(OutputError, match="holds a mask set 'second'"):
        interop.export(others[1], bank, "h5", name="second")
    for name in "", "a/b", "a#b", ".", "\x1b":
        with pytest.raises(OutputError, match="cannot name a mask set of a bank"):
            interop.export(others[1], bank, "h5", name=name)
    assert bank.read_bytes() == before
    assert os.listdir(tmp_path) == ["bank.h5"]
    interop.export(others[1], bank, "h5", name="second", force=True)
    assert interop.read(f"{bank}#second", base).id == others[1].id
    assert interop.read(f"{bank}#first", base).id == maskset.id
    other = open_checkpoint(tiny.write_base(tmp_path / "other", seed=1))
    with pytest.raises(BaseMismatchError, match="not the base this mask was made for"):
        interop.read(f"{bank}#first", other)


def test_a_bank_is_only_added_to_a_bank(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"text")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data"] = np.arange(3)
    for name, message in ("a.h5", "damaged, or no HDF5 bank"), ("b.h5", "an HDF5 file, but no bank of mask sets"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(MaskhubError, match=message):
            interop.export(maskset, tmp_path / name, "h5", force=True)
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 2, 2, 3)])
def test_odd_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    tensors = {"a.weight": RawTensor.from_numpy(rng.random(shape) + 1), "b": RawTensor.from_numpy(np.ones(9))}
    base = open_checkpoint(tiny.write_checkpoint(tmp_path / "base", tensors))
    binding = BaseBinding.of("x", {n: base.digest(n) for n in base}, {n: n for n in base}, None)
    maskset = MaskSet(binding, {"a.weight": Mask.from_bool(rng.random(shape) < 0.5)}, {"c": tensors["a.weight"]})
    for to in interop.writable():
        interop.export(maskset, tmp_path / f"m.{to}", to)
        assert interop.read(tmp_path / f"m.{to}", base).masks == maskset.masks
    assert interop.read(tmp_path / "m.h5", base).id == maskset.id


def test_a_long_manifest_fits(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    """HDF5 allows attributes of 64 KiB; strings of any length lie elsewhere."""
    noted = dataclasses.replace(maskset, lineage={"note": "é" * 300_000})
    interop.export(noted, tmp_path / "m.h5", "h5")
    assert interop.read(tmp_path / "m.h5", base).lineage == noted.lineage


def test_what_cannot_be_written(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    for to in "onnx", "scores", "":
        with pytest.raises(ArgumentError, match=f"there is no '{to}'. It is one of: npz, pt, safetensors, h5"):
            interop.export(maskset, tmp_path / "a", to)
    with pytest.raises(ArgumentError, match="npz files hold one mask set, which has no name"):
        interop.export(maskset, tmp_path / "a", "npz", name="a")
    slash = dataclasses.replace(maskset, dense={"a/b": RawTensor.from_numpy(np.ones(2))})
    with pytest.raises(OutputError, match="HDF5 has no place for a tensor that is called a/b"):
        interop.export(slash, tmp_path / "a", "h5")
    with pytest.raises(MissingError, match="there is no folder"):
        interop.export(maskset, tmp_path / "none" / "a", "npz")
    assert not os.listdir(tmp_path)


def test_a_file_is_replaced_by_force_only(base: Checkpoint, maskset: MaskSet, tmp_path: Path) -> None:
    for to in "npz", "pt", "safetensors":
        path = tmp_path / f"m.{to}"
        path.write_bytes(b"old")
        with pytest.raises(OutputError, match="the output file exists"):
            interop.export(maskset, path, to)
        assert path.read_bytes() == b"old"
        interop.export(maskset, path, to, force=True)
        assert interop.read(path, base).masks == maskset.masks


@pytest.mark.parametrize(
    ("module", "to", "message"),
    [
        ("h5py", "h5", "HDF5 files need h5py. Install it: pip install 'maskhub[interop]'."),
        ("torch", "pt", "PyTorch files need torch. Install it: pip install torch."),
    ],
)
def test_missing_libraries_are_named(
    base: Checkpoint,
    maskset: MaskSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    to: str,
    message: str,
) -> None:
    pytest.importorskip(module)
    interop.export(maskset, tmp_path / "a", to)
    monkeypatch.setitem(sys.modules, module, None)
    for action in (
        lambda: interop.export(maskset, tmp_path / "b", to),
        lambda: interop.read(tmp_path / "a", base),
    ):
        with pytest.raises(MaskhubError) as caught:
            action()
        assert str(caught.value) == message
    assert os.listdir(tmp_path) == ["a"]


def test_nothing_heavy_is_imported_before_it_is_needed(base_folder: Path, mask_path: Path, tmp_path: Path) -> None:
    script = """if True:
        import sys, maskhub
        from maskhub import interop
        base, mask, folder = sys.argv[1:]
        interop.export(maskhub.open(mask), folder + "/m.npz", "npz")
        interop.read(folder + "/m.npz", maskhub.open_checkpoint(base))
    """
    assert not loaded(script, base_folder, mask_path, tmp_path) & {*HEAVY, "h5py"}

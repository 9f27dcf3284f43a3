from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub import interop
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.masks.mask import MaskSet
from tests.cli.conftest import Run, fields

pytest.importorskip("h5py")


def test_npz_and_back(program: Run, mask_path: Path, base_folder: Path, base: Checkpoint, maskset: MaskSet) -> None:
    ran = program("export", mask_path, "--to", "npz")
    assert ran.status == 0
    assert ran.out.splitlines()[0] == "task.npz"
    assert fields(ran.out)["mask"] == f"{mask_path} ({maskset.id})"
    assert "Warning: 2 dense tensors are not in task.npz: npz files hold masks only" in ran.err
    assert ran.err.endswith("It can be packed again: maskhub pack task.npz --base tiny-bert")
    assert interop.read("task.npz", base).masks == maskset.masks
    ran = program("pack", "task.npz", "--base", base_folder, "-q")
    assert (ran.status, ran.out) == (0, "task.msk\n")
    packed = maskhub.open("task.msk")
    assert dict(packed.masks) == maskset.masks
    assert packed.lineage["source"] == "MaskLLM"


def test_json_and_quiet(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    ran = run("export", mask_path, "--to", "safetensors", "-o", "a.st", "--json")
    assert json.loads(ran.out) == {
        "output": "a.st",
        "to": "safetensors",
        "name": None,
        "bytes": Path("a.st").stat().st_size,
        "masks": len(maskset.masks),
        "mask": maskset.id,
    }
    assert run("export", mask_path, "--to", "h5", "-q").out == "task.h5\n"


def test_a_bank_grows(run: Run, mask_path: Path, base_folder: Path, maskset: MaskSet) -> None:
    assert run("export", mask_path, "--to", "h5", "-o", "bank.h5").status == 0
    ran = run("export", mask_path, "--to", "h5", "-o", "bank.h5", "--name", "b c")
    assert ran.status == 0
    assert "maskhub pack 'bank.h5#b c' --base tiny-bert" in ran.err
    ran = run("export", mask_path, "--to", "h5", "-o", "bank.h5")
    assert ran.status == 1
    assert ran.err == ("Error: bank.h5: holds a mask set 'task'. Name another with --name, or replace it: --force.")
    assert run("export", mask_path, "--to", "h5", "-o", "bank.h5", "--force").status == 0
    ran = run("pack", "bank.h5", "--base", base_folder)
    assert ran.status == 1
    assert ran.err == "Error: bank.h5: name one of its 2 mask sets: b c, task. As in bank.h5#NAME."
    assert run("pack", "bank.h5#b c", "--base", base_folder, "-q").out == "b c.msk\n"
    assert maskhub.open("b c.msk").id == maskset.id


def test_outputs_that_cannot_be(run: Run, mask_path: Path) -> None:
    Path("task.npz").write_bytes(b"old")
    ran = run("export", mask_path, "--to", "npz")
    assert ran.status == 1
    assert "task.npz: the output file exists. Name another one, or replace it" in ran.err
    assert run("export", mask_path, "--to", "npz", "--force").status == 0
    ran = run("export", mask_path, "--to", "npz", "--name", "a", "-o", "a.npz")
    assert (ran.status, ran.err) == (2, "Error: npz files hold one mask set, which has no name. Leave --name out.")
    ran = run("export", "nowhere.msk", "--to", "npz", "--name", "a", "-o", "a.npz")  # said before a mask is read
    assert (ran.status, ran.err) == (2, "Error: npz files hold one mask set, which has no name. Leave --name out.")
    ran = run("export", mask_path, "--to", "onnx")
    assert (ran.status, ran.err) == (
        2,
        f"Error: export format: there is no 'onnx'. It is one of: {', '.join(interop.writable())}.",
    )
    shutil.copyfile(mask_path, "x.h5")
    ran = run("export", mask_path, "--to", "h5", "-o", "x.h5")
    assert ran.status == 1
    assert ran.err.startswith("Error: x.h5: damaged, or no HDF5 bank: ")


def test_a_damaged_mask_is_not_exported(run: Run, mask_path: Path) -> None:
    data = bytearray(mask_path.read_bytes())
    data[-1] ^= 1
    Path("bad.msk").write_bytes(data)
    ran = run("export", "bad.msk", "--to", "h5")
    assert ran.status == 1
    assert "changed or damaged" in ran.err
    assert not Path("bad.h5").exists()


def test_packing_scores(program: Run, run: Run, base_folder: Path, base: Checkpoint, mask_path: Path) -> None:
    torch = pytest.importorskip("torch")
    name = "pooler.dense.weight"
    scores = torch.linspace(0, 1, 36).reshape(6, 6)
    torch.save({f"bert.{name}": torch.from_numpy(base.read(name).numpy().copy()), f"bert.{name}_mask": scores}, "s.pt")
    ran = program("pack", "s.pt", "--base", base_folder, "--threshold", "0.5", "-q")
    assert (ran.status, ran.out, ran.err) == (0, "s.msk\n", "")
    packed = maskhub.open("s.msk")
    assert np.array_equal(packed.masks[name].to_bool(), (scores > 0.5).numpy())
    assert packed.lineage == {"operation": "pack", "source": "scores", "threshold": 0.5}
    ran = run("pack", mask_path, "--threshold", "0.5", "-o", "x.msk")
    assert (ran.status, ran.err) == (
        2, f"Error: {mask_path}: holds no scores, which a threshold is for. Leave --threshold out."
    )  # fmt: skip


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.npy", "a.h5", "a.bin"])
def test_sources_that_are_none(program: Run, run: Run, base_folder: Path, name: str) -> None:
    ran = run("pack", name, "--base", base_folder)
    assert ran.status == 1
    assert ran.err == f"Error: {name}: no such file"
    Path(name).write_bytes(b"\x80\x04text")
    ran = program("pack", name, "--base", base_folder)
    assert ran.status == 1
    assert len(ran.stderr.splitlines()) == 1
    assert ran.err.startswith(f"Error: {name}: damaged, or no PyTorch file")

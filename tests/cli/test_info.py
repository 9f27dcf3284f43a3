from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.container.writer import save
from maskhub.masks.mask import MaskSet
from maskhub.storage.safetensors import write_tensors
from maskhub.storage.tensor import RawTensor
from tests import tiny
from tests.cli.conftest import Run, fields


def test_numbers_come_from_the_masks(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    data = json.loads(run("info", mask_path, "--json").out)
    weights = sum(m.size for m in maskset.masks.values())
    dropped = sum(m.size - m.kept for m in maskset.masks.values())
    assert data["file"] == str(mask_path)
    assert data["file_bytes"] == mask_path.stat().st_size
    assert data["id"] == maskset.id
    assert data["version"] == "1.0"
    assert data["task"]["type"] == "text-classification"
    assert data["base"] == {
        "name": "tiny-bert", "root": maskset.base.root, "tensors": len(maskset.base.tensors), "hub": None
    }  # fmt: skip
    assert (data["weights"], data["dropped"]) == (weights, dropped)
    assert data["sparsity"] == pytest.approx(dropped / weights)
    assert data["bits_per_weight"] == pytest.approx(8 * data["mask_bytes"] / weights)
    assert (data["dense_tensors"], data["dense_bytes"]) == (2, sum(t.data.nbytes for t in maskset.dense.values()))
    assert data["metrics"] == {"accuracy": 0.9}
    assert data["lineage"] == {"operation": "train", "seed": 0}
    assert sum(data["codecs"].values()) == len(maskset.masks)
    assert "masks" not in data
    assert "dense" not in data


def test_rows_add_up_to_the_totals(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    data = json.loads(run("info", mask_path, "--tensors", "--json").out)
    rows = {row["name"]: row for row in data["masks"]}
    assert list(rows) == sorted(maskset.masks)
    for name, mask in maskset.masks.items():
        row, p = rows[name], mask.sparsity
        assert row["parameter"] == f"bert.{name}"
        assert tuple(row["shape"]) == mask.shape
        assert row["dropped"] == mask.size - mask.kept
        assert row["bits_per_weight"] == pytest.approx(8 * row["bytes"] / mask.size)
        assert row["entropy"] == pytest.approx(-p * math.log2(p) - (1 - p) * math.log2(1 - p))
    assert sum(row["bytes"] for row in rows.values()) == data["mask_bytes"]
    bits = sum(row["entropy"] * row["weights"] for row in rows.values())
    assert data["entropy"] == pytest.approx(bits / data["weights"])
    assert data["dense"] == [
        {"name": "classifier.bias", "dtype": "F32", "shape": [2], "bytes": 8},
        {"name": "classifier.weight", "dtype": "F32", "shape": [2, tiny.HIDDEN], "bytes": 8 * tiny.HIDDEN},
    ]


def test_people_read_the_same_numbers(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    ran = run("info", mask_path)
    data = json.loads(run("info", mask_path, "--json").out)
    assert ran.out.splitlines()[0] == str(mask_path)
    shown = fields(ran.out)
    assert shown["id"] == maskset.id
    assert shown["task"] == "text-classification (BertForSequenceClassification)"
    assert shown["dropped"] == f"{data['dropped']} weights, sparsity {data['sparsity']:.4f}"
    assert shown["masks"] == f"{data['mask_bytes']} bytes, {data['bits_per_weight']:.4f} bits a weight"
    assert shown["metrics"] == "accuracy 0.9000"
    assert shown["lineage"] == "operation train"
    assert "seed 0" in ran.out
    assert "density" not in ran.out
    assert ran.err == f"Next: maskhub apply tiny-bert {mask_path}"


def test_tensors_adds_a_row_for_each(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    lines = run("info", mask_path, "--tensors").out.splitlines()
    for name, mask in maskset.masks.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert f"{mask.sparsity:.4f}" in line
        assert f"{mask.shape[0]} × {mask.shape[1]}" in line
    assert any(line.startswith("classifier.weight ") for line in lines)


def test_quiet_prints_the_id_alone(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    ran = run("info", mask_path, "-q")
    assert (ran.out, ran.err) == (maskset.id + "\n", "")


def test_a_mask_without_task_or_dense_tensors(run: Run, maskset: MaskSet) -> None:
    save(MaskSet(maskset.base, dict(list(maskset.masks.items())[:1])), "bare.msk")
    shown = fields(run("info", "bare.msk").out)
    assert "task" not in shown
    assert "metrics" not in shown
    assert "lineage" not in shown
    assert shown["dense"] == "0 tensors, 0 bytes"
    assert shown["masked"].endswith("weights in 1 tensor")


def test_text_from_the_file_cannot_steer_the_terminal(run: Run, maskset: MaskSet) -> None:
    save(MaskSet(maskset.base, dict(maskset.masks), lineage={"note": "\x1b]0;title\x07\nid  0000"}), "odd.msk")
    ran = run("info", "odd.msk")
    assert "\x1b" not in ran.out
    assert "\x07" not in ran.out
    assert "note \\x1b]0;title\\x07\\nid  0000" in ran.out


def test_the_manifest_is_what_the_file_has(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    manifest, _ = tiny.read_parts(mask_path)
    ran = run("info", mask_path, "--manifest")
    assert json.loads(ran.out) == manifest
    assert ran.out.startswith('{\n  "base": {\n')
    ran = run("info", mask_path, "--manifest", "--json")
    assert json.loads(ran.out) == manifest
    assert ran.out.count("\n") == 1
    assert run("info", mask_path, "--manifest", "--quiet").out == f"{maskset.id}\n"
    odd = dataclasses.replace(maskset, lineage={"note": "\x1b[2J\x9b"})
    maskhub.save(odd, "odd.msk")
    ran = run("info", "odd.msk", "--manifest")
    assert json.loads(ran.out)["lineage"] == odd.lineage
    assert ran.out.isascii()
    assert "\x1b" not in ran.out


def test_what_is_no_mask_is_one_line(run: Run, base_folder: Path) -> None:
    Path("text.msk").write_text("hello")
    Path("empty.msk").touch()
    with open("bad.msk", "wb") as file:
        write_tensors(file, {}, {"format": "maskhub", "version": "7.0"})
    with open("stray.msk", "wb") as file:
        write_tensors(
            file, {"x": RawTensor.from_numpy(tiny.np.zeros(3, "f4"))}, {"format": "maskhub", "version": "1.0"}
        )
    with open("old.msk", "wb") as file:
        write_tensors(file, {}, {"maskhub": "{}"})
    for path, message in {
        "none.msk": "none.msk: no such file",
        base_folder: f"{base_folder}: a folder, and a mask is a file. Name the .msk file.",
        "text.msk": "text.msk: not a safetensors file, or cut short",
        "empty.msk": "empty.msk: not a safetensors file, or cut short",
        "bad.msk": "bad.msk: format version 7.0, and this MaskHub reads 1.x. Upgrade it: pip install",
        "stray.msk": "stray.msk: the metadata has no 'base'. Get the file again from where it came.",
        "old.msk": "old.msk: a mask file of MaskHub 0.1, whose layout is not read any more. Make it anew from its run",
        base_folder / "model.safetensors": "a safetensors file, but no mask: its metadata's 'format' is not 'maskhub'",
    }.items():
        ran = run("info", path)
        assert ran.status == 1
        assert ran.out == ""
        assert ran.err.startswith("Error: ")
        assert message in ran.err
        assert ran.stderr.count("\n") == 1


def test_a_picture(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    pytest.importorskip("matplotlib")
    ran = run("info", mask_path, "--plot", "task.svg")
    assert (ran.status, fields(ran.out)["picture"]) == (0, "task.svg")
    drawn = Path("task.svg").read_text()
    assert "<!-- Dropped weights of task.msk -->" in drawn
    assert all(f"<!-- {100 * mask.sparsity:.2f} -->" in drawn for mask in maskset.masks.values())
    plain = run("info", mask_path, "--json").out
    assert run("info", mask_path, "--json", "--plot", "task.svg", "--force").out == plain


def test_a_picture_that_cannot_be(run: Run, mask_path: Path) -> None:
    """It is refused before the mask is read."""
    pytest.importorskip("matplotlib")
    Path("there.png").write_text("mine")
    for name, status, message in (
        ("task.jpg", 2, "task.jpg: cannot tell what kind of picture this is. Name it .png, .svg or .pdf."),
        ("there.png", 1, "there.png: the output file exists. Name another one, or replace it with --force."),
        ("no/task.png", 1, "no/task.png: there is no folder no. Make it first."),
    ):
        ran = run("info", "none.msk", "--plot", name)
        assert (ran.status, ran.out, ran.err) == (status, "", f"Error: {message}")
    assert [path.name for path in Path().iterdir()] == ["there.png"]
    assert Path("there.png").read_text() == "mine"


@pytest.fixture
def several(base: Checkpoint, mask_path: Path) -> list[str]:
    """Masks of one base, of which one has no task."""
    save(tiny.tiny_maskset(base, seed=1, sparsity=0.3), "b.msk")
    save(dataclasses.replace(tiny.tiny_maskset(base, seed=2), task=None, metrics={}), "c.msk")
    return [str(mask_path), "b.msk", "c.msk"]


def test_several_masks_have_a_row_each(run: Run, several: list[str]) -> None:
    ran = run("info", *several)
    alone = [json.loads(run("info", mask, "--json").out) for mask in several]
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[0] == ["3", "masks"]
    assert rows[2] == ["mask", "task", "bytes", "bits/weight", "sparsity", "metric"]
    for row, name, one in zip(rows[3:], ("task", "b", "c"), alone, strict=True):
        task, metric = ("-", ["-"]) if name == "c" else ("text-classification", ["accuracy", "0.9000"])
        numbers = [f"{one['file_bytes']:,}", f"{one['bits_per_weight']:.4f}", f"{one['sparsity']:.4f}"]
        assert row == [name, task, *numbers, *metric]
    assert ran.err == ""
    assert json.loads(run("info", *several, "--json").out) == alone
    assert run("info", *several, "-q").out.split() == [one["id"] for one in alone]


@pytest.mark.parametrize("option", ["--tensors", "--all", "--manifest"])
def test_what_is_for_one_mask(run: Run, several: list[str], option: str) -> None:
    ran = run("info", *several, option)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"Error: {option} is for one mask. Leave it out, or name one mask."


def test_in_python_a_list_gives_a_list(several: list[str]) -> None:
    alone = [maskhub.info(mask) for mask in several]
    assert maskhub.info(several) == maskhub.info([maskhub.open(mask) for mask in several]) == alone
    assert maskhub.info(several[:1]) == alone[:1]
    with pytest.raises(maskhub.MaskhubError, match="no mask is given"):
        maskhub.info([])


def test_one_of_several_is_no_mask(run: Run, several: list[str]) -> None:
    ran = run("info", several[0], "none.msk")
    assert (ran.status, ran.out, ran.err) == (1, "", "Error: none.msk: no such file. Check the name and the folder.")


def test_a_picture_of_several(run: Run, several: list[str]) -> None:
    pytest.importorskip("matplotlib")
    ran = run("info", *several, "--plot", "memory.svg")
    assert (ran.status, fields(ran.out)["picture"]) == (0, "memory.svg")
    drawn = Path("memory.svg").read_text()
    for text in ("on disk", "in memory", ".msk files", "dense copies", "live tasks, up to 256 MB decoded"):
        assert f"<!-- {text} -->" in drawn


def test_masks_of_different_bases_share_no_memory(run: Run, several: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    other = tiny.write_base(tmp_path / "other", seed=1)
    save(tiny.tiny_maskset(open_checkpoint(other)), "other.msk")
    ran = run("info", several[0], "other.msk", "--plot", "memory.svg")
    assert ran.status == 1
    assert ran.err.startswith("Error: task and other are masks of different bases")
    assert not Path("memory.svg").exists()
    assert run("info", several[0], "other.msk").status == 0


def test_imports_no_heavy_library(mask_path: Path) -> None:
    code = (
        "import sys\n"
        "from maskhub_cli.main import main\n"
        f"sys.argv = ['maskhub', 'info', {str(mask_path)!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = set(result.stdout.splitlines()[-1].split())
    assert "maskhub" in modules
    assert not modules & {"torch", "transformers", "huggingface_hub", "matplotlib", "sklearn", "datasets", "h5py"}

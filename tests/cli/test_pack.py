from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path

import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container import codecs
from maskhub.masks.mask import MaskSet
from maskhub.training.run import MASK, RunRecord, write_record
from maskhub.training.settings import TrainSettings
from tests import tiny
from tests.cli.conftest import Run, fields
from tests.tiny import TASK


@pytest.fixture
def pruned(base: Checkpoint, maskset: MaskSet) -> str:
    """A dense checkpoint of ``maskset`` in the folder ``pruned``."""
    tiny.build(base, maskset, "pruned")
    return "pruned"


def test_a_pruned_checkpoint(program: Run, base_folder: Path, pruned: str, maskset: MaskSet) -> None:
    ran = program("pack", pruned, "--base", base_folder)
    assert ran.status == 0, ran.err
    packed = maskhub.open("pruned.msk")
    assert packed.id == maskset.id
    assert dict(packed.masks) == maskset.masks
    assert packed.task == maskset.task
    assert packed.base.name == str(base_folder)
    assert ran.out.splitlines()[0] == "pruned.msk"
    assert fields(ran.out)["id"] == maskset.id
    assert "--base-name gives it a name for others" in ran.err
    assert ran.err.endswith(f"Next: maskhub apply {base_folder} pruned.msk")


def test_json_is_the_summary_of_what_was_written(run: Run, base_folder: Path, pruned: str) -> None:
    ran = run("pack", pruned, "--base", base_folder, "-o", "a.msk", "--base-name", "org/base", "--json")
    assert ran.err == ""
    data = json.loads(ran.out)
    assert data == json.loads(run("info", "a.msk", "--json").out)
    assert data["base"]["name"] == "org/base"


@pytest.mark.parametrize("codec", ["bits", "zstd", "gaps", "drift"])
def test_repacking_keeps_the_id(run: Run, mask_path: Path, maskset: MaskSet, codec: str) -> None:
    ran = run("pack", mask_path, "--codec", codec, "-o", "new.msk", "-q")
    assert (ran.out, ran.err) == ("new.msk\n", "")
    data = json.loads(run("info", "new.msk", "--json").out)
    assert data["codecs"] == {codec: len(maskset.masks)}
    assert data["id"] == maskset.id
    assert data["lineage"] == maskset.lineage
    assert data["metrics"] == maskset.metrics


def test_repacking_can_rename_the_base_and_check_it(run: Run, mask_path: Path, base_folder: Path) -> None:
    assert run("pack", mask_path, "--base", base_folder, "--base-name", "org/base").status == 0
    packed = maskhub.open("task.msk")
    assert packed.base.name == "org/base"
    assert packed.id == maskhub.open(mask_path).id
    tiny.write_base(Path("other"), seed=1)
    ran = run("pack", mask_path, "--base", "other", "-o", "x.msk")
    assert ran.status == 1
    assert "other: not the base this mask was made for" in ran.err
    assert not Path("x.msk").exists()


def test_a_run_needs_no_base(run: Run, base_folder: Path, maskset: MaskSet) -> None:
    folder = Path("runs/sst2")
    folder.mkdir(parents=True)
    settings = TrainSettings(base=str(base_folder), train_file="train.csv")
    write_record(folder, RunRecord(settings, maskset.base, TASK, None, {}))
    maskhub.save(maskset, folder / MASK)
    assert run("pack", folder, "-q").out == "sst2.msk\n"
    assert run("pack", folder, "--base", base_folder, "-o", "b.msk", "-q").out == "b.msk\n"
    packed = maskhub.open("sst2.msk")
    assert packed.id == maskhub.open("b.msk").id == maskset.id
    assert packed.metrics == maskset.metrics
    tiny.write_base(Path("other"), seed=1)
    ran = run("pack", folder, "--base", "other", "-o", "x.msk")
    assert ran.status == 1
    assert "other: not the base this mask was made for" in ran.err


def test_a_damaged_run_is_one_line(run: Run) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text("{}")
    ran = run("pack", "run")
    assert ran.status == 1
    assert ran.err.startswith(f"Error: {Path('run/run.json')}: ")


def test_a_checkpoint_needs_a_base(run: Run, pruned: str) -> None:
    ran = run("pack", pruned)
    assert (ran.status, ran.err) == (
        2,
        "Error: pruned: neither a run's folder nor a .msk file, and what it was pruned from is not given. "
        "Name it: --base BASE.",
    )
    ran = run("pack", pruned, "--revision", "main")
    assert (ran.status, ran.err) == (2, "Error: --revision is for a base. Give one: --base.")


def test_codecs_that_there_are_not(run: Run, mask_path: Path) -> None:
    for codec, message in {
        "zip": f"codec: there is no 'zip'. It is one of: {', '.join(codecs.names())}.",
        "zstd:19": "codec 'zstd:19': there is nothing to choose behind a colon. Name it zstd.",
        "nm:2of4": "codec 'nm:2of4': no pattern of neighbours. It is nm:N:M, as in nm:2:4: "
        "M is 2, 4, 8 or 16, and N below it.",
    }.items():
        ran = run("pack", mask_path, "--codec", codec)
        assert (ran.status, ran.out, ran.err) == (2, "", f"Error: {message}")
    assert os.listdir() == []


def test_outputs_that_cannot_be(run: Run, mask_path: Path) -> None:
    shutil.copyfile(mask_path, "task.msk")
    shutil.copyfile(mask_path, "old.msk")
    Path("link.msk").symlink_to("task.msk")
    Path("folder.msk").mkdir()
    good = Path("task.msk").read_bytes()
    for arguments, message in {
        (): "task.msk: the output is SOURCE itself. Name another one with -o.",
        ("--force",): "task.msk: the output is SOURCE itself. Name another one with -o.",
        ("-o", "link.msk", "--force"): "link.msk: the output is SOURCE itself. Name another one with -o.",
        ("-o", "old.msk"): "old.msk: the output file exists. Name another one, or replace it with --force.",
        ("-o", "folder.msk", "--force"): "folder.msk: the output is a folder. Name a file.",
        ("-o", "no/a.msk"): "no/a.msk: there is no folder no. Make it first.",
    }.items():
        ran = run("pack", "task.msk", *arguments)
        assert ran.status == 1
        assert ran.out == ""
        assert ran.err.startswith(f"Error: {message}")
    assert Path("task.msk").read_bytes() == good
    ran = run("pack", "task.msk", "-o", "a.txt")
    assert (ran.status, ran.err) == (2, "Error: the output a.txt does not end in .msk. Such as a.msk.")
    assert run("pack", "task.msk", "--codec", "bits", "-o", "old.msk", "--force").status == 0
    assert json.loads(run("info", "old.msk", "--json").out)["codecs"].keys() == {"bits"}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write")
def test_an_unwritable_folder(run: Run, mask_path: Path) -> None:
    ran = run("pack", mask_path, "-o", "/proc/a.msk")
    assert ran.status == 1
    assert ran.err.startswith("Error: /proc/a.msk: cannot be written: ")


def test_what_was_not_pruned_from_the_base(run: Run, base_folder: Path, pruned: str) -> None:
    tiny.write_base(Path("other"), seed=1)
    size = math.prod(tiny.SHAPES["embeddings.word_embeddings.weight"])
    for source, message in {
        "other": "other: tensor embeddings.word_embeddings.weight was not pruned from the base: "
        f"{size} of {size} weights are neither the base's nor 0. Only pruning can be packed",
        base_folder: f"{base_folder}: equals the base {base_folder}: no weight is pruned",
        "none.msk": "none.msk: no such file",
        "no/such/folder": "no/such/folder: no such folder.",
    }.items():
        ran = run("pack", source, "--base", base_folder, "-o", "x.msk")
        assert ran.status == 1
        assert ran.err.startswith(f"Error: {message}")
    assert "x.msk" not in os.listdir()


@pytest.mark.parametrize("source", ["nope", "nope.h5", "./a/b/c", "nope.npz#task"])
def test_a_source_that_is_not_there(run: Run, source: str) -> None:
    ran = run("pack", source, "-o", "x.msk")
    assert (ran.status, ran.err) == (1, f"Error: {source}: no such file or folder")


def test_the_default_output_lies_here(run: Run, base_folder: Path, pruned: str) -> None:
    shutil.copyfile(f"{pruned}/model.safetensors", "v1.2.safetensors")
    shutil.copyfile(f"{pruned}/config.json", "config.json")
    assert run("pack", "v1.2.safetensors", "--base", base_folder, "-q").out == "v1.2.msk\n"
    os.rename(pruned, "model.v2")
    assert run("pack", "./model.v2/", "--base", base_folder, "-q").out == "model.v2.msk\n"

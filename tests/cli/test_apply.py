from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import maskhub
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.masks.mask import MaskSet
from tests import tiny
from tests.cli.conftest import Run, fields


@pytest.fixture
def mask(mask_path: Path) -> str:
    shutil.copyfile(mask_path, "task.msk")
    return "task.msk"


def test_writes_a_folder_of_the_masks_name(
    program: Run, base_folder: Path, mask: str, base: Checkpoint, maskset: MaskSet
) -> None:
    ran = program("apply", base_folder, mask)
    assert ran.status == 0, ran.err
    assert sorted(os.listdir()) == ["task", "task.msk"]
    dense = open_checkpoint("task")
    assert dense.config()["architectures"] == ["BertForSequenceClassification"]
    assert set(dense) == {f"bert.{name}" for name in base} | set(maskset.dense)
    for name, kept in maskset.masks.items():
        expected = np.where(kept.to_bool(), base.read(name).numpy(), 0)
        assert np.array_equal(dense.read(f"bert.{name}").numpy(), expected)
    size = sum(f.stat().st_size for f in Path("task").iterdir())
    assert ran.out.splitlines()[0] == "task"
    assert fields(ran.out) == {
        "size": f"{size:,} bytes",
        "base": f"{base_folder} (verified)",
        "mask": f"task.msk ({maskset.id})",
        "task": "text-classification (BertForSequenceClassification)",
    }
    assert ran.err == "Next: transformers.BertForSequenceClassification.from_pretrained('task')"


def test_json_and_quiet(run: Run, base_folder: Path, mask: str, maskset: MaskSet) -> None:
    ran = run("apply", base_folder, mask, "-o", "new/dense", "--json")
    data = json.loads(ran.out)
    assert data == {
        "output": "new/dense",
        "bytes": sum(f.stat().st_size for f in Path("new/dense").iterdir()),
        "base": str(base_folder),
        "mask": maskset.id,
        "verified": True,
    }
    assert ran.err == ""
    ran = run("apply", base_folder, mask, "-o", "other", "-q")
    assert (ran.out, ran.err) == ("other\n", "")


def test_another_base_leaves_nothing_behind(run: Run, mask: str) -> None:
    tiny.write_base(Path("other"), seed=1)
    ran = run("apply", "other", mask, "-o", "dense")
    assert ran.status == 1
    assert ran.err.startswith("Error: other: not the base this mask was made for: it differs in ")
    assert ran.err.endswith("This mask belongs to tiny-bert.")
    assert sorted(os.listdir()) == ["other", "task.msk"]
    ran = run("apply", "other", mask, "-o", "dense", "--no-verify")
    assert ran.status == 0
    assert fields(ran.out)["base"] == "other (not verified)"


def test_outputs_that_cannot_be(run: Run, base_folder: Path, mask: str) -> None:
    Path("full").mkdir()
    Path("full/note").touch()
    for output, message in {
        "full": "full: the output folder exists and is not empty. Name a new folder.",
        "task.msk": "task.msk: the output folder exists and is not a folder. Name a new folder.",
        "task.msk/x": f"task.msk/x: cannot be written: {Path('task.msk').absolute()} is a file. Name a new folder.",
        base_folder / "x": f"{base_folder / 'x'}: the output lies inside the base's own folder. Name a folder",
    }.items():
        ran = run("apply", base_folder, mask, "-o", output)
        assert ran.status == 1
        assert ran.out == ""
        assert ran.err.startswith(f"Error: {message}")
    assert os.listdir("full") == ["note"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write")
def test_an_unwritable_folder(run: Run, base_folder: Path, mask: str) -> None:
    ran = run("apply", base_folder, mask, "-o", "/proc/x")
    assert ran.status == 1
    assert ran.err.startswith("Error: /proc/x: cannot be written: ")


def test_arguments_the_wrong_way_round(run: Run, base_folder: Path, mask: str) -> None:
    ran = run("apply", mask, base_folder)
    assert ran.status == 1
    assert ran.err == f"Error: {base_folder}: a folder, and a mask is a file. Name the .msk file."


def test_a_damaged_mask_is_refused(run: Run, base_folder: Path, mask: str) -> None:
    data = bytearray(Path(mask).read_bytes())
    data[-1] ^= 1
    Path(mask).write_bytes(data)
    ran = run("apply", base_folder, mask)
    assert ran.status == 1
    assert ran.err == (
        "Error: task.msk: the file was changed or damaged after it was written (seal). "
        "Get the file again from where it came."
    )
    assert os.listdir() == ["task.msk"]


def test_masks_of_one_name(run: Run, base_folder: Path, base: Checkpoint) -> None:
    """Every run calls its mask so."""
    for i, name in enumerate(("runA", "runB")):
        Path(name).mkdir()
        maskhub.save(tiny.tiny_maskset(base, seed=i), f"{name}/mask.msk")
    ran = run("apply", base_folder, "runA/mask.msk", "runB/mask.msk", "-o", "built", "-q")
    assert (ran.status, ran.out.split()) == (0, ["built/runA-mask", "built/runB-mask"])
    assert run("apply", base_folder, "runA/mask.msk", "-q").out == "runA-mask\n"  # beside the run, not in it


def test_several_masks_in_one_call(run: Run, base_folder: Path, base: Checkpoint) -> None:
    for i in range(3):
        maskhub.save(tiny.tiny_maskset(base, seed=i), f"m{i}.msk")
    ran = run("apply", base_folder, "m0.msk", "m1.msk", "m2.msk", "-o", "out", "--json")
    assert [row["output"] for row in json.loads(ran.out)] == ["out/m0", "out/m1", "out/m2"]
    assert run("apply", base_folder, "m1.msk", "-o", "alone", "-q").out == "alone\n"
    for path in Path("alone").iterdir():
        assert (Path("out/m1") / path.name).read_bytes() == path.read_bytes()
    ran = run("apply", base_folder, "m0.msk", "m1.msk", "-o", "out")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "Error: out/m0: the output folder exists and is not empty. Name a new folder."


def test_sizes_and_dtypes(run: Run, base_folder: Path, mask: str) -> None:
    ran = run("apply", base_folder, mask, "-o", "out", "--shard-size", "0.0004MB", "--dtype", "bf16", "-q")
    assert (ran.status, ran.err) == (0, "")
    written = open_checkpoint("out")
    assert len(written.shards) > 2
    assert {written.info(name).dtype for name in written} == {"BF16"}
    ran = run("apply", base_folder, mask, "-o", "x", "--shard-size", "many")
    assert ran.status == 2
    assert "'many' is no size such as 500MB or 5GB" in ran.err
    ran = run("apply", base_folder, mask, "-o", "x", "--dtype", "int8")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "Error: dtype: there is no 'int8'. It is one of: F64, F32, F16, BF16."


def test_extract_undoes_apply(run: Run, base_folder: Path, mask: str, maskset: MaskSet) -> None:
    assert run("apply", base_folder, mask, "-o", "dense").status == 0
    ran = run("extract", base_folder, "dense", "-o", "back.msk", "-q")
    assert (ran.status, ran.out, ran.err) == (0, "back.msk\n", "")
    assert maskhub.open("back.msk").id == maskset.id
    ran = run("extract", base_folder, base_folder)
    assert ran.status == 1
    assert "equals the base" in ran.err


def test_a_closed_pipe_leaves_the_folder_whole(base_folder: Path, mask: str, run: Run) -> None:
    command = [sys.executable, "-m", "maskhub_cli", "apply", str(base_folder), mask, "-o", "piped"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # nobody reads what is built where
        process.stderr.close()
        process.wait(timeout=60)
    assert run("apply", base_folder, mask, "-o", "plain").status == 0
    for path in Path("plain").iterdir():
        assert (Path("piped") / path.name).read_bytes() == path.read_bytes()
    assert sorted(os.listdir()) == ["piped", "plain", "task.msk"]

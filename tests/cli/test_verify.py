from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskhub.container.writer import save
from maskhub.masks.mask import MaskSet
from tests import tiny
from tests.cli.conftest import Run, fields


def test_says_what_was_checked(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    ran = run("verify", mask_path)
    assert ran.status == 0
    assert ran.out.splitlines()[0] == f"{mask_path}: verified"
    assert fields(ran.out) == {
        "id": f"{maskset.id}, matches",
        "seal": f"{mask_path.stat().st_size:,} bytes, as they were written",
        "masks": f"{len(maskset.masks)} tensors decoded, digests match",
        "dense": "2 tensors, digests match",
        "base": "not checked; --base does",
    }
    assert ran.err == f"Next: maskhub verify {mask_path} --base tiny-bert"


@pytest.mark.parametrize("shards", [1, 3])
def test_fit_to_a_base_however_it_is_sharded(run: Run, mask_path: Path, maskset: MaskSet, shards: int) -> None:
    base = tiny.write_base(Path("base"), shards=shards)
    ran = run("verify", mask_path, "--base", base)
    assert fields(ran.out)["base"] == f"base: {len(maskset.base.tensors)} tensors, digests match"
    assert ran.err == f"Next: maskhub apply base {mask_path}"
    data = json.loads(run("verify", mask_path, "--base", base, "--json").out)
    assert data["base"] == {"name": "base", "tensors": len(maskset.base.tensors)}


def test_json_and_quiet(run: Run, mask_path: Path, maskset: MaskSet) -> None:
    ran = run("verify", mask_path, "--json")
    assert json.loads(ran.out) == {
        "file": str(mask_path),
        "id": maskset.id,
        "file_bytes": mask_path.stat().st_size,
        "masks": len(maskset.masks),
        "dense": 2,
        "cached": None,
        "base": None,
    }
    assert ran.err == ""
    assert run("verify", mask_path, "-q").out == maskset.id + "\n"


def test_another_base_is_named_with_what_differs(run: Run, mask_path: Path) -> None:
    tensors = tiny.base_tensors()
    tensors["pooler.dense.bias"] = tiny.base_tensors(seed=1)["pooler.dense.bias"]
    tiny.write_checkpoint(Path("other"), tensors)
    ran = run("verify", mask_path, "--base", "other")
    assert ran.status == 1
    assert ran.out == ""
    assert ran.err == (
        f"Error: other: not the base this mask was made for: it differs in 1 of {len(tensors)} tensors: "
        "pooler.dense.bias. This mask belongs to tiny-bert."
    )


def test_a_changed_byte_anywhere_is_found(run: Run, maskset: MaskSet) -> None:
    save(maskset, "task.msk")
    good = Path("task.msk").read_bytes()
    for position in (good.index(maskset.dense["classifier.weight"].data.tobytes()), len(good) - 1):
        Path("task.msk").write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        ran = run("verify", "task.msk")
        assert ran.status == 1
        assert ran.err == (
            "Error: task.msk: the file was changed or damaged after it was written (seal). "
            "Get the file again from where it came."
        )


def test_base_that_cannot_be_opened(run: Run, mask_path: Path) -> None:
    Path("empty").mkdir()
    Path("text.txt").touch()
    for base, message in {
        "empty": "empty: the folder has neither model.safetensors nor pytorch_model.bin, nor an index of shards",
        "text.txt": "text.txt: not a checkpoint: expected a folder, a .safetensors or a PyTorch file",
        "no/such/folder": "no/such/folder: no such folder. Name a folder with config.json",
    }.items():
        ran = run("verify", mask_path, "--base", base)
        assert ran.status == 1
        assert ran.err.startswith(f"Error: {message}")


def test_revision_belongs_to_a_base_on_the_hub(run: Run, mask_path: Path, base_folder: Path) -> None:
    ran = run("verify", mask_path, "--revision", "main")
    assert (ran.status, ran.err) == (2, "Error: --revision is for a base. Give one: --base.")
    ran = run("verify", mask_path, "--base", base_folder, "--revision", "main")
    assert ran.status == 2
    assert "a local checkpoint has no revision 'main'. Leave it out." in ran.err

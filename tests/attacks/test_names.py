"""Names from a file are never paths, and never steer a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.reader import MaskFile, open_mask
from maskhub.container.writer import save
from maskhub.errors import MaskhubError
from maskhub.masks.mask import MaskSet
from maskhub.storage.safetensors import TensorFile
from maskhub.storage.tensor import RawTensor
from tests import tiny
from tests.attacks.forge import changed, put

PATHS = (
    "../../outside",
    "/tmp/outside",
    "..",
    "a/../../outside",
    "C:\\outside",
    "~/outside",
    "x" * 1024,
    "config.json",
)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_names_like_paths_are_only_names(base_folder: Path, maskset: MaskSet, tmp_path: Path) -> None:
    head = RawTensor.from_numpy(np.ones(2, np.float32))
    binding = msgspec.structs.replace(
        maskset.base,
        name="../../../etc/passwd",
        parameters={name: f"../../{name}" for name in maskset.base.tensors},
    )
    hostile = MaskSet(binding, maskset.masks, dict.fromkeys(PATHS, head), maskset.task)
    work = tmp_path / "a" / "b"
    work.mkdir(parents=True)
    save(hostile, work / "x.msk")
    base = open_checkpoint(base_folder)
    before = tree(tmp_path)
    plain = tiny.build(base, maskset, tmp_path / "plain")
    out = tiny.build(base, open_mask(work / "x.msk"), work / "out")
    assert tree(out) == tree(plain)
    assert tree(tmp_path) - before == {
        "plain",
        "a/b/out",
        *(f"{f}/{n}" for f in ("plain", "a/b/out") for n in tree(out)),
    }
    assert set(PATHS) < set(TensorFile(out / "model.safetensors"))
    assert not Path("/tmp/outside").exists()


def test_no_parameter_takes_the_place_of_the_metadata(base_folder: Path, maskset: MaskSet, tmp_path: Path) -> None:
    first = next(iter(maskset.base.tensors))
    hostile = MaskSet(msgspec.structs.replace(maskset.base, parameters={first: "__metadata__"}), maskset.masks)
    with pytest.raises(MaskhubError, match="__metadata__"):
        tiny.build(open_checkpoint(base_folder), hostile, tmp_path / "out")
    assert not (tmp_path / "out").exists()


STEER = "\x1b]0;title\x07\x1b[2J\x9b2J\r\n\u202egpj.exe\u2028\x00\x7f"


def steer(c: Any) -> None:
    m = c.manifest
    m["base"]["name"] = m["task"]["type"] = m["task"]["architecture"] = STEER
    m["base"]["hub"] = {"id": STEER, "commit": STEER, "files": {STEER: "0" * 64}}
    m["metrics"] = {STEER: 1.0}
    m["lineage"] = {STEER: {STEER: STEER, "list": [STEER]}}
    m["task"]["tokenizer"] = STEER
    for name in ("\u202egaps", "\x9b2Jgaps", "\u2066\u2028"):  # names without C0 characters are names
        m["base"]["tensors"][name] = "0" * 16
        m["masks"][name], c.masks[name] = m["masks"]["gaps"].copy(), c.masks["gaps"]


def test_nothing_from_a_file_steers_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.msk"
    path.write_bytes(changed(steer))
    MaskFile(path)
    commands = (
        ["info", path],
        ["info", path, "--tensors"],
        ["info", path, "--json"],
        ["verify", path],
        ["info", path, "-q"],
    )
    (tmp_path / "y.msk").write_bytes(changed(put("version", STEER)))
    for arguments in (*commands, ["info", tmp_path / "y.msk"], ["verify", tmp_path / "y.msk"]):
        command = [sys.executable, "-m", "maskhub_cli", *map(str, arguments)]
        environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
        ran = subprocess.run(command, capture_output=True, timeout=60, env=environment)
        said = (ran.stdout + ran.stderr).decode()
        assert said.strip()
        assert [c for c in said if not c.isprintable() and c != "\n"] == [], arguments

"""Pipes, devices and sockets where a file is meant: refused at once, in one line. Each is a real one."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import maskhub
from maskhub.errors import MaskhubError
from maskhub.storage.folderfile import INDEX
from tests import tiny

SECONDS = 120  # on a busy machine; a pipe would be waited for without end

# What each command reads, with the pipe as ``{pipe}``: the good files are base, task.msk and test.csv.
COMMANDS = {
    "mask": "info {pipe}.msk",
    "mask to apply": "apply base {pipe}.msk -o built",
    "mask to verify": "verify {pipe}.msk",
    "mask to compare": "diff task.msk {pipe}.msk",
    "mask to combine": "compose ~a a={pipe}.msk -o out.msk",
    "mask to pack": "pack {pipe}.msk -o out.msk",
    "mask to push": "push {pipe}.msk shared",
    "mask to pull": "pull shared/{pipe}.msk -o out.msk",
    "base": "apply {pipe}.safetensors task.msk",
    "PyTorch base": "apply {pipe}.bin task.msk",
    "source": "pack {pipe}.npz --base base -o out.msk",
    "source without a suffix": "pack {pipe} --base base -o out.msk",
    "dense checkpoint": "extract base {pipe}.safetensors -o out.msk",
    "bank": "export task.msk --to h5 -o {pipe}.h5",
    "private key": "push task.msk shared --sign {pipe}",
    "public key": "pull shared/task -o out.msk --require-signature {pipe}",
    "examples": "evaluate base task.msk --file {pipe}.csv",
    "examples to predict": "predict base task.msk --file {pipe}.csv",
    "training examples": "train base --train-file {pipe}.csv -o run --dry-run",
    "settings": "train base --config {pipe}.yaml -o run --dry-run",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("special")
    base = tiny.write_base(folder / "base")
    maskhub.save(tiny.tiny_maskset(base), folder / "task.msk")
    (folder / "shared").mkdir()
    maskhub.push(folder / "task.msk", str(folder / "shared"))
    (folder / "test.csv").write_text("text,label\nfree prize,spam\n")
    for suffix in ("", ".msk", ".safetensors", ".bin", ".npz", ".h5", ".csv", ".yaml"):
        os.mkfifo(folder / f"pipe{suffix}")
        os.mkfifo(folder / "shared" / f"pipe{suffix}")
    return folder


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maskhub_cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | {"MASKHUB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.parametrize("what", COMMANDS)
def test_a_pipe_is_refused_at_once(folder: Path, what: str) -> None:
    ran = command(folder, *COMMANDS[what].format(pipe="pipe").split())
    assert ran.returncode == 1, ran.stderr
    assert re.fullmatch(r"(Reading examples: \S+\n)?Error: \S*pipe\S*: a pipe, not a file.*\n", ran.stderr), ran.stderr
    assert not (folder / "out.msk").exists()


PLACES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "model.safetensors": ("base", lambda path: maskhub.open_checkpoint(path.parent)),
    "config.json": ("base", lambda path: maskhub.apply(path.parent, path.parent.parent / "task.msk", "out")),
    "tokenizer.json": ("base", lambda path: maskhub.apply(path.parent, path.parent.parent / "task.msk", "out")),
    "model.safetensors.index.json": ("base", lambda path: maskhub.open_checkpoint(path.parent)),
}


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("name", PLACES)
def test_a_file_of_a_base_that_is_none(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "base", tmp_path / "base")
    shutil.copy(folder / "task.msk", tmp_path)
    path = tmp_path / "base" / name
    path.unlink(missing_ok=True)
    if name.endswith("index.json"):  # which counts where there is no single file
        (tmp_path / "base/model.safetensors").unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                monkeypatch.chdir(tmp_path / "base")  # its name may not be long
                bound.bind(name)
                monkeypatch.chdir(tmp_path)
            case "device":
                path.symlink_to("/dev/zero")
        with pytest.raises(MaskhubError, match=rf"{name}: a {kind}, not a file"):
            PLACES[name][1](path)
    assert sorted(os.listdir(tmp_path)) == ["base", "task.msk"]


def test_a_shard_that_is_a_pipe(tmp_path: Path) -> None:
    base = tiny.write_base(tmp_path / "base", shards=3)
    shard = base / "model-00002-of-00003.safetensors"
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(MaskhubError, match=r"model-00002-of-00003\.safetensors: a pipe, not a file"):
        maskhub.open_checkpoint(base)


def test_a_tokenizer_that_is_a_pipe_is_not_waited_for(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    shutil.copytree(folder / "base", tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").unlink()
    os.mkfifo(tmp_path / "base" / "tokenizer.json")
    ran = command(folder, "predict", str(tmp_path / "base"), "task.msk", "free prize")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert "tokenizer.json: a pipe, not a file" in ran.stderr


def test_a_list_tells_of_a_pipe_and_goes_on(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "shared", tmp_path / "shared", ignore=shutil.ignore_patterns("pipe*"))
    os.mkfifo(tmp_path / "shared" / INDEX / "bad.json")
    ran = command(tmp_path, "list", "shared")
    assert ran.returncode == 0, ran.stderr
    assert "task.msk" in ran.stdout
    assert "a pipe, not a file" in ran.stdout + ran.stderr


def test_a_parent_that_is_a_pipe(folder: Path, tmp_path: Path) -> None:
    parent = maskhub.open(folder / "task.msk")
    child = tmp_path / "child.msk"
    maskhub.save(~parent, child, codec="delta", parent=parent)
    ran = command(folder, "verify", str(child), "--parent", "pipe.msk")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert "pipe.msk: a pipe, not a file" in ran.stderr

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from maskhub.checkpoints.checkpoint import INDEX, WEIGHTS, open_checkpoint, read_json
from maskhub.errors import ArgumentError, CheckpointError, FormatError, MissingError, RemoteError
from tests import tiny


def test_a_folder_is_its_tensors(base_folder: Path) -> None:
    checkpoint = open_checkpoint(base_folder)
    expected = load_file(base_folder / WEIGHTS)
    assert set(checkpoint) == expected.keys() == tiny.SHAPES.keys()
    for name, array in expected.items():
        assert checkpoint.read(name).data.tobytes() == array.tobytes()
        assert checkpoint.info(name).shape == array.shape
    assert checkpoint.name == str(base_folder)
    assert checkpoint.size == (base_folder / WEIGHTS).stat().st_size
    assert checkpoint.config()["model_type"] == "bert"
    assert checkpoint.hub is None


def test_one_file_is_a_checkpoint_too(base_folder: Path) -> None:
    checkpoint = open_checkpoint(base_folder / WEIGHTS)
    assert set(checkpoint) == tiny.SHAPES.keys()
    assert checkpoint.config()["model_type"] == "bert"


@pytest.mark.parametrize("dtype", tiny.FLOATS)
def test_digests_do_not_depend_on_the_shards(tmp_path: Path, dtype: str) -> None:
    whole = open_checkpoint(tiny.write_base(tmp_path / "1", dtype, integers=True))
    for shards in (2, 5):
        parts = open_checkpoint(tiny.write_base(tmp_path / str(shards), dtype, shards=shards, integers=True))
        assert len(parts.shards) == shards
        assert {n: parts.digest(n) for n in parts} == {n: whole.digest(n) for n in whole}
    other = open_checkpoint(tiny.write_base(tmp_path / "other", dtype, seed=1))
    assert all(other.digest(n) != whole.digest(n) for n in other)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for path, reason in {
        tmp_path / "empty": "the folder has neither model.safetensors nor pytorch_model.bin, nor an index of shards",
        tmp_path / "notes.txt": "not a checkpoint: expected a folder, a .safetensors or a PyTorch file",
        tmp_path / "absent": "no such folder",
        tmp_path / "absent.safetensors": "no such folder",
        Path("relative/absent/folder"): "no such folder",
        Path("absent.safetensors"): "no such folder",
        Path("absent.bin"): "no such folder",
        Path("x" * 5000): "no such folder",
    }.items():
        with pytest.raises(CheckpointError if "not a" in reason else MissingError, match=reason):
            open_checkpoint(path)


def test_a_name_that_only_the_hub_could_know_is_explained_offline() -> None:
    with pytest.raises(RemoteError) as caught:
        open_checkpoint("user/absent")
    assert str(caught.value) == (
        "user/absent: no such folder, and not from the Hub: not in the Hub's cache, and offline mode is on. "
        "Unset HF_HUB_OFFLINE. Or name a folder here."
    )


def test_a_path_of_two_parts_does_not_look_like_an_id_on_the_hub(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base_folder.parent.parent)
    path = base_folder.relative_to(base_folder.parent.parent)
    assert open_checkpoint(path).name == open_checkpoint(f"./{path}").name == f"./{path}"


def test_a_local_checkpoint_has_no_revision(base_folder: Path) -> None:
    with pytest.raises(ArgumentError, match="a local checkpoint has no revision 'main'"):
        open_checkpoint(base_folder, revision="main")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = tiny.write_base(tmp_path / "b")
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1])
    with pytest.raises(FormatError, match=r"model\.safetensors: not a safetensors file, or cut short"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("index", "error", "reason"),
    [
        ("{", FormatError, "index.json: not valid JSON"),
        ("[]", FormatError, "index.json: expected a JSON object"),
        ("[" * 100_000, FormatError, "index.json: not valid JSON"),
        ("\xff", FormatError, "index.json: not valid JSON"),
        ("{}", FormatError, "index.json: the field 'weight_map' does not map tensors to files beside it"),
        ('{"weight_map": []}', FormatError, "'weight_map' does not map"),
        ('{"weight_map": {"a": 1}}', FormatError, "'weight_map' does not map"),
        ('{"weight_map": {"a": "../b/model.safetensors"}}', FormatError, "'weight_map' does not map"),
        ('{"weight_map": {"a": "/etc/passwd"}}', FormatError, "'weight_map' does not map"),
        ('{"weight_map": {"a": ".."}}', MissingError, "the shard is missing"),
        ('{"weight_map": {"a": ""}}', MissingError, "the shard is missing"),
        ('{"weight_map": {"a": "\\u0000"}}', MissingError, "the shard is missing"),
        ('{"weight_map": {"a": "\\ud800"}}', MissingError, "the shard is missing"),
        ('{"weight_map": {"a": "absent"}}', MissingError, "absent: the shard is missing, and .*index.json names it"),
        ('{"weight_map": {"a": "config.json"}}', FormatError, "config.json: not a safetensors file"),
        (
            '{"weight_map": {"a": "model-1.safetensors"}}',
            FormatError,
            "model-1.safetensors: .*index.json places tensor a here, but the shard lacks it",
        ),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, index: str, error: type[Exception], reason: str) -> None:
    folder = tiny.write_base(tmp_path / "b")
    (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    (folder / INDEX).write_text(index, encoding="latin-1")
    with pytest.raises(error, match=reason):
        open_checkpoint(folder)


def test_read_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text('{"a":' * 100_000)
    (tmp_path / "number.json").write_text('{"a":' + "9" * 10_000 + "}")
    for name, error, reason in (
        ("absent.json", MissingError, "absent.json: no such file"),
        (".", FormatError, "a folder, not a file"),
        ("deep.json", FormatError, "deep.json: not valid JSON"),
        ("number.json", FormatError, "number.json: not valid JSON"),
    ):
        with pytest.raises(error, match=reason):
            read_json(tmp_path / name)


@pytest.mark.parametrize("source", ["user/tiny", "hf://user/tiny", "user/tiny@main", "hf://user/tiny@{commit}"])
def test_a_model_in_the_hub_cache_is_opened_by_its_id(base_folder: Path, tmp_path: Path, source: str) -> None:
    snapshot, commit = tiny.hub_cache(tmp_path, "user/tiny", base_folder)
    child = subprocess.run(
        [sys.executable, "-c", tiny.OPEN, source.format(commit=commit)],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    sha = hashlib.sha256((base_folder / WEIGHTS).read_bytes()).hexdigest()
    assert json.loads(child.stdout) == [
        "user/tiny",
        str(snapshot),
        "user/tiny",
        commit,
        {WEIGHTS: sha},
        len(tiny.SHAPES),
    ]

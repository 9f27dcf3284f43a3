"""Local copies of models on the Hub, found in its cache. What is asked of the Hub: ``tests/remote/test_bases.py``."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.identify import base_warning, identify
from maskhub.checkpoints.pruned import from_pruned
from maskhub.masks.binding import HubRevision
from tests import tiny


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("shards", [1, 3])
def test_a_copy_of_a_cached_model(cache: Path, tmp_path: Path, shards: int) -> None:
    folder = tiny.write_base(tmp_path / "base", shards=shards)
    assert identify(open_checkpoint(folder)) is None  # there is no cache yet
    tiny.hub_cache(cache, "ann/other", tiny.write_base(tmp_path / "other", seed=1, shards=shards))  # of the same sizes
    assert identify(open_checkpoint(folder)) is None
    _, commit = tiny.hub_cache(cache, "ann/tiny--bert", folder)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}
    assert len(files) == shards
    found = identify(open_checkpoint(folder))
    assert found == HubRevision("ann/tiny--bert", commit, files)
    assert identify(dataclasses.replace(open_checkpoint(folder), hub=found)) is found


def test_the_newest_commit_with_these_files(cache: Path, base: Checkpoint, base_folder: Path) -> None:
    snapshot, commit = tiny.hub_cache(cache, "ann/tiny", base_folder)
    other = snapshot.with_name("0" * 40)
    shutil.copytree(snapshot, other, symlinks=True)
    assert (found := identify(base))
    assert found.commit == commit
    (snapshot.parent.parent / "refs" / "main").write_text(other.name)
    assert (found := identify(base))
    assert found.commit == other.name


def test_a_part_of_a_model_or_changed_weights_are_not_the_model(cache: Path, tmp_path: Path) -> None:
    folder = tiny.write_base(tmp_path / "base", shards=2)
    tiny.hub_cache(cache, "ann/tiny", folder)
    shard = folder / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert identify(open_checkpoint(folder)) is None
    tiny.hub_cache(cache, "bob/half", folder)
    blob = (cache / "models--bob--half/snapshots").glob("*/" + shard.name)
    os.remove(next(blob))
    assert identify(open_checkpoint(folder)) is None


def test_a_mask_of_an_identified_base_knows_it_from_the_hub(cache: Path, base_folder: Path, tmp_path: Path) -> None:
    _, commit = tiny.hub_cache(cache, "ann/tiny", base_folder)
    base = open_checkpoint(base_folder)
    base = dataclasses.replace(base, hub=identify(base))
    dense = open_checkpoint(tiny.build(base, tiny.tiny_maskset(base), tmp_path / "dense"))
    binding = from_pruned(base, dense).base
    assert binding.hub
    assert (binding.hub.id, binding.hub.commit) == ("ann/tiny", commit)
    assert binding.name == str(base_folder)


@pytest.mark.parametrize(
    ("name", "warned"),
    [("ann/tiny", False), ("gpt2", False), ("./base", True), ("/data/base", True), ("a/b/c", True), ("here", True)],
)
def test_which_names_others_cannot_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, warned: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    text = f"others cannot find the base {name}: name it by --base-name user/repo"
    assert base_warning(name) == (text if warned else None)
    known = f"others cannot find the base {name}, whose files are those of ann/tiny@{'c' * 12}: name it by -n ann/tiny"
    assert base_warning(name, HubRevision("ann/tiny", "c" * 40), cure="-n") == (known if warned else None)
